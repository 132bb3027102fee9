"""Geometry of patch sets, `bool` arrays of shape `grid`, and their relation to pixel masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..mapping import PatchMapping
from .chance import integer, uniform


if TYPE_CHECKING:
    import torch


def patches_of_mask(mask: np.ndarray, patch_size: int = 16) -> np.ndarray:
    """
    The patches that hold at least one pixel of a mask.

    Args:
        mask (`np.ndarray` of shape `(height, width)`, `bool`): Pixels.
        patch_size (`int`, defaults to 16): Side of a patch, pixels.

    Returns:
        `np.ndarray` of shape `(height // patch_size, width // patch_size)`, `bool`.

    Raises:
        ValueError: a side that is no multiple of `patch_size`.
    """
    return np.any(_to_blocks(mask, patch_size), axis=(2, 3))


def artifact_mask(mapping: PatchMapping, object_mask: np.ndarray, patch_size: int = 16) -> np.ndarray:
    """
    The pixels of an artifact: in every target patch those where the object was, and those where it is now that the
    reference patch's content lies there. For `add` it is the copy's contour, for `remove` the part that vanished.

    Args:
        mapping (`PatchMapping`): The artifact.
        object_mask (`np.ndarray` of shape `(rows * patch_size, columns * patch_size)`, `bool`): Pixels of the part, or
            of both entities that are fused.
        patch_size (`int`, defaults to 16): Side of a patch, pixels.

    Returns:
        `np.ndarray` of the shape of `object_mask`, `bool`: never beyond the target patches.

    Raises:
        ValueError: an `object_mask` that does not fit the mapping's grid.
    """
    blocks = _to_blocks(object_mask, patch_size)
    if blocks.shape[:2] != mapping.grid:
        expected = tuple(side * patch_size for side in mapping.grid)
        raise ValueError(f"`object_mask` must have shape {expected} for the mapping's grid, got {object_mask.shape}")
    flat = blocks.reshape(-1, patch_size, patch_size)  # (tokens, patch_size, patch_size)
    targets, references = list(mapping.targets), list(mapping.references)
    moved = np.zeros_like(flat)
    moved[targets] = flat[targets] | flat[references]
    return moved.reshape(blocks.shape).swapaxes(1, 2).reshape(object_mask.shape)


def bbox_of_mask(mask: np.ndarray) -> tuple[float, float, float, float]:
    """
    The box around a mask.

    Args:
        mask (`np.ndarray` of shape `(height, width)`, `bool`): Pixels.

    Returns:
        `tuple[float, float, float, float]`: `(x_min, y_min, x_max, y_max)`, exclusive maxima, pixels.

    Raises:
        ValueError: an empty mask.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        raise ValueError(f"`mask` must have pixels, got an empty one of shape {mask.shape}")
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def l1_distance(patches: np.ndarray) -> np.ndarray:
    """
    The L1 distance of every patch to the nearest one of a set.

    Args:
        patches (`np.ndarray` of shape `grid`, `bool`): The set.

    Returns:
        `np.ndarray` of shape `grid`, `int`: 0 inside; rows + columns, which no distance reaches, if the set is empty.
    """
    distance = np.where(patches, 0, sum(patches.shape))
    for axis, line in enumerate(np.ogrid[: patches.shape[0], : patches.shape[1]]):
        before = np.minimum.accumulate(distance - line, axis) + line
        after = np.flip(np.minimum.accumulate(np.flip(distance + line, axis), axis), axis) - line
        distance = np.minimum(before, after)
    return distance


def shift(patches: np.ndarray, offset: tuple[int, int]) -> np.ndarray:
    """
    A patch set moved by whole patches; what leaves the grid is dropped.

    Args:
        patches (`np.ndarray` of shape `grid`, `bool`): The set.
        offset (`tuple[int, int]`): Rows down and columns to the right.

    Returns:
        `np.ndarray` of shape `grid`, `bool`.
    """
    points = np.argwhere(patches) + offset
    moved = np.zeros_like(patches)
    moved[tuple(points[is_on_grid(points, patches.shape)].T)] = True
    return moved


def is_on_grid(points: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """Which of `points`, an `int` array of shape `(n, 2)` of (row, column), lie on the grid."""
    return np.all((points >= 0) & (points < grid), axis=1)


def token_indices(points: np.ndarray, grid: tuple[int, ...]) -> list[int]:
    """The row-major token indices of `points`, an `int` array of shape `(n, 2)` of (row, column) on the grid."""
    return (points[:, 0] * grid[1] + points[:, 1]).tolist()


def nearest(points: np.ndarray, patches: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """
    For each point the nearest patch of a set by L1 distance, one of them at random where several are.

    Args:
        points (`np.ndarray` of shape `(n, 2)`, `int`): Rows and columns, on the grid or off it.
        patches (`np.ndarray` of shape `grid`, `bool`): The set, not empty.
        generator (`torch.Generator`): Breaks ties.

    Returns:
        `np.ndarray` of shape `(n, 2)`, `int`: Rows and columns.
    """
    members = np.argwhere(patches)
    distance = np.abs(points[:, None] - members).sum(axis=2)  # (points, members)
    # Distances are whole numbers, so that a fraction orders nothing but the ties.
    return members[(distance + uniform(distance.shape, generator)).argmin(axis=1)]


def farthest_points(patches: np.ndarray, count: int, generator: torch.Generator) -> np.ndarray:
    """
    Points spread over a patch set: the first at random, each next one farthest (L1) from those before.

    Args:
        patches (`np.ndarray` of shape `grid`, `bool`): The set, not empty.
        count (`int`): Number of points, at most the size of the set.
        generator (`torch.Generator`): Chooses the first.

    Returns:
        `np.ndarray` of shape `(count, 2)`, `int`: Rows and columns.
    """
    members = np.argwhere(patches)
    chosen = [integer(len(members), generator)]
    while len(chosen) < count:
        distance = np.abs(members[:, None] - members[chosen]).sum(axis=2).min(axis=1)
        chosen.append(int(distance.argmax()))
    return members[chosen]


def choose_best(keys: Sequence[Any], generator: torch.Generator) -> int:
    """The position of the greatest of `keys`, one of them at random where several are equal."""
    greatest = max(keys)
    ties = [position for position, key in enumerate(keys) if key == greatest]
    return ties[integer(len(ties), generator)]


def _to_blocks(mask: np.ndarray, patch_size: int) -> np.ndarray:
    """A view of shape `(rows, columns, patch_size, patch_size)`."""
    height, width = mask.shape
    if height % patch_size or width % patch_size:
        raise ValueError(f"`mask` must have sides that are multiples of {patch_size}, got {height}x{width}")
    rows, columns = height // patch_size, width // patch_size
    return mask.reshape(rows, patch_size, columns, patch_size).swapaxes(1, 2)
