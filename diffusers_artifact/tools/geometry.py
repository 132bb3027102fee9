"""Geometry of patch sets (`bool` arrays of shape `grid`) and of pixel masks."""

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
    Find the patches that contain at least one pixel of a mask.

    Args:
        mask (`np.ndarray` of shape `(height, width)`, `bool`): The mask.
        patch_size (`int`, *optional*, defaults to 16): Side of a patch in pixels.

    Returns:
        `np.ndarray` of shape `(height // patch_size, width // patch_size)`, `bool`.

    Raises:
        ValueError: A side of the mask is no multiple of `patch_size`.
    """
    return np.any(_to_blocks(mask, patch_size), axis=(2, 3))


def artifact_mask(mapping: PatchMapping, object_mask: np.ndarray, patch_size: int = 16) -> np.ndarray:
    """
    Compute where an artifact shows or showed an object: in every target patch, the pixels where the content of the
    reference patch now shows it, and those where it was before, unless it is copied. For `add` it is the copy, for
    `remove` the part that vanished.

    Args:
        mapping (`PatchMapping`): The artifact.
        object_mask (`np.ndarray` of shape `(rows * patch_size, columns * patch_size)`, `bool`): Mask of the part, or
            of both entities of a fusion.
        patch_size (`int`, *optional*, defaults to 16): Side of a patch in pixels.

    Returns:
        `np.ndarray` of the shape of `object_mask`, `bool`: Only pixels of target patches are set.

    Raises:
        ValueError: `object_mask` does not fit the mapping's grid.
    """
    blocks = _to_blocks(object_mask, patch_size)
    if blocks.shape[:2] != mapping.grid:
        expected = tuple(side * patch_size for side in mapping.grid)
        raise ValueError(f"`object_mask` must have shape {expected} for the mapping's grid, got {object_mask.shape}")
    flat = blocks.reshape(-1, patch_size, patch_size)  # (tokens, patch_size, patch_size)
    targets, references = list(mapping.targets), list(mapping.references)
    # A mapping without types is one of duplications, which leave the object where it is.
    types = mapping.types or ("duplication",) * len(targets)
    leaves = np.array([kind == "duplication" for kind in types])[:, None, None]
    moved = np.zeros_like(flat)
    moved[targets] = flat[references] | (flat[targets] & ~leaves)
    return moved.reshape(blocks.shape).swapaxes(1, 2).reshape(object_mask.shape)


def bbox_of_mask(mask: np.ndarray) -> tuple[float, float, float, float]:
    """
    Compute the bounding box of a mask.

    Args:
        mask (`np.ndarray` of shape `(height, width)`, `bool`): The mask.

    Returns:
        `tuple[float, float, float, float]`: `(x_min, y_min, x_max, y_max)` in pixels, with exclusive maxima.

    Raises:
        ValueError: The mask is empty.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        raise ValueError(f"`mask` must have at least one pixel, got an empty one of shape {mask.shape}")
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def l1_distance(patches: np.ndarray) -> np.ndarray:
    """
    Compute the L1 distance of every patch to the nearest one of a set.

    Args:
        patches (`np.ndarray` of shape `grid`, `bool`): The set.

    Returns:
        `np.ndarray` of shape `grid`, `int`: 0 inside; if the set is empty, rows + columns, which no distance reaches.
    """
    distance = np.where(patches, 0, sum(patches.shape))
    for axis, line in enumerate(np.ogrid[: patches.shape[0], : patches.shape[1]]):
        before = np.minimum.accumulate(distance - line, axis) + line
        after = np.flip(np.minimum.accumulate(np.flip(distance + line, axis), axis), axis) - line
        distance = np.minimum(before, after)
    return distance


def shift(patches: np.ndarray, offset: tuple[int, int]) -> np.ndarray:
    """
    Move a patch set by whole patches, without the patches that leave the grid.

    Args:
        patches (`np.ndarray` of shape `grid`, `bool`): The set.
        offset (`tuple[int, int]`): Number of rows down and of columns to the right.

    Returns:
        `np.ndarray` of shape `grid`, `bool`.
    """
    points = np.argwhere(patches) + offset
    moved = np.zeros_like(patches)
    moved[tuple(points[is_on_grid(points, patches.shape)].T)] = True
    return moved


def is_on_grid(points: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """Return which of `points`, an `int` array `(n, 2)` of (row, column), lie on the grid, as `bool` `(n,)`."""
    return np.all((points >= 0) & (points < grid), axis=1)


def token_indices(points: np.ndarray, grid: tuple[int, ...]) -> list[int]:
    """Return the row-major token indices of `points`, an `int` array `(n, 2)` of (row, column) on the grid."""
    return (points[:, 0] * grid[1] + points[:, 1]).tolist()


def nearest(points: np.ndarray, patches: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """
    Find the nearest patch of a set (L1) for each point, at random among equally near ones.

    Args:
        points (`np.ndarray` of shape `(n, 2)`, `int`): Rows and columns, on or off the grid.
        patches (`np.ndarray` of shape `grid`, `bool`): The set, not empty.
        generator (`torch.Generator`): Breaks ties.

    Returns:
        `np.ndarray` of shape `(n, 2)`, `int`: Rows and columns.
    """
    members = np.argwhere(patches)
    distance = np.abs(points[:, None] - members).sum(axis=2)  # (points, members)
    # Distances are integers, so adding a fraction only orders the ties.
    return members[(distance + uniform(distance.shape, generator)).argmin(axis=1)]


def farthest_points(patches: np.ndarray, count: int, generator: torch.Generator) -> np.ndarray:
    """
    Draw points spread over a patch set: the first at random, each further one farthest (L1) from those before.

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
    """Return the index of the greatest of `keys`, at random among equal ones."""
    greatest = max(keys)
    ties = [position for position, key in enumerate(keys) if key == greatest]
    return ties[integer(len(ties), generator)]


def _to_blocks(mask: np.ndarray, patch_size: int) -> np.ndarray:
    """Return a view of shape `(rows, columns, patch_size, patch_size)`."""
    height, width = mask.shape
    if height % patch_size or width % patch_size:
        raise ValueError(f"`mask` must have sides that are multiples of {patch_size}, got {height}x{width}")
    rows, columns = height // patch_size, width // patch_size
    return mask.reshape(rows, patch_size, columns, patch_size).swapaxes(1, 2)
