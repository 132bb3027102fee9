"""Visible change: where an artifact image differs from its clean image so that a viewer can see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np


if TYPE_CHECKING:
    # Not `from .x import y`: of a repository on the Hub, diffusers fetches a file once for every such line that leads
    # to it, from each module that leads there.
    from . import mapping

    PatchMapping = mapping.PatchMapping


VERSION = 1
"""Version of the definition, raised with every change of it or of the constants below."""
SMOOTHING = 1.5
"""Standard deviation of the Gaussian that differences are averaged with, px. Noise of single pixels averages out."""
THRESHOLD = 0.05
"""Smoothed difference above which a change is visible, in [0, 1]: 13 of 255 grey levels."""
MIN_AREA = 16
"""Least number of pixels of a visible change, about the area that the Gaussian averages over."""


def definition() -> dict[str, Any]:
    """Return the constants that a visible change is defined by, as a run records them."""
    return {"version": VERSION, "smoothing": SMOOTHING, "threshold": THRESHOLD, "min_area": MIN_AREA}


def change_map(clean: np.ndarray, flawed: np.ndarray) -> np.ndarray:
    """
    Compute how much an image has changed around every pixel: the absolute difference, averaged over channels and
    smoothed.

    Args:
        clean, flawed (`np.ndarray` of shape `(height, width, 3)`, `uint8`): The clean and the artifact image.

    Returns:
        `np.ndarray` of shape `(height, width)`, `float32` in [0, 1].
    """
    difference = np.abs(clean.astype(np.int16) - flawed.astype(np.int16)).mean(axis=2, dtype=np.float32) / 255
    return smooth(difference, SMOOTHING)


def smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    """
    Average values with a Gaussian. At the border they continue mirrored.

    Args:
        values (`np.ndarray` of shape `(height, width)`, `float32`): The values.
        sigma (`float`): Standard deviation, px.

    Returns:
        `np.ndarray` of the shape of `values`, `float32`.
    """
    radius = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    for _ in range(2):  # along the rows, then, transposed, along the columns
        padded = np.pad(values, ((0, 0), (radius, radius)), mode="symmetric")
        length = values.shape[1]
        values = np.sum([w * padded[:, i : i + length] for i, w in enumerate(weights)], axis=0).T
    return values


def owners(visible: np.ndarray, targets: Sequence[np.ndarray]) -> np.ndarray:
    """
    Divide the visible change of an image among its artifacts. A pixel belongs to the artifact whose target patches it
    reaches on the shortest way through changed pixels, diagonal steps included; to none if there is no such way.

    Args:
        visible (`np.ndarray` of shape `(height, width)`, `bool`): Where the image has visibly changed.
        targets (`Sequence[np.ndarray]`): Target patches of each artifact as disjoint masks of the same shape.

    Returns:
        `np.ndarray` of shape `(height, width)`, `int32`: Index of the artifact, -1 for none.
    """
    height, width = visible.shape
    wide = width + 2
    # Framed, so that no neighbour needs a check of the border.
    free = np.pad(visible, 1).ravel()
    owner = np.full(free.size, -1, dtype=np.int32)
    for index, pixels in enumerate(targets):
        owner[np.pad(pixels, 1).ravel() & free] = index
    free &= owner < 0
    front = np.flatnonzero(owner >= 0)
    neighbours = np.array([-wide - 1, -wide, -wide + 1, -1, 1, wide - 1, wide, wide + 1])
    while front.size:
        reached = (front[:, None] + neighbours).ravel()
        of = owner[front].repeat(len(neighbours))
        new = free[reached]
        reached, of = reached[new], of[new]
        # Written from the last artifact to the first, so that the first wins where two arrive at once.
        order = np.argsort(-of, kind="stable")
        owner[reached[order]] = of[order]
        front = np.unique(reached)
        free[front] = False
    return owner.reshape(height + 2, wide)[1:-1, 1:-1]


def target_mask(mapping: PatchMapping, height: int) -> np.ndarray:
    """Return the target patches of a mapping as a mask of pixels, `bool`, for an image of `height` px."""
    patches = mapping.target_patches()
    size = height // patches.shape[0]
    return patches.repeat(size, axis=0).repeat(size, axis=1)


def label_masks(clean: np.ndarray, flawed: np.ndarray, mappings: Sequence[PatchMapping]) -> list[np.ndarray]:
    """
    Find the visible change of every artifact of an image.

    Args:
        clean, flawed (`np.ndarray` of shape `(height, width, 3)`, `uint8`): The clean and the artifact image.
        mappings (`Sequence[PatchMapping]`): Mapping of each artifact, with disjoint targets.

    Returns:
        `list[np.ndarray]`: For each artifact a disjoint mask of shape `(height, width)`, `bool`; empty if less than
        `MIN_AREA` pixels have changed.
    """
    targets = [target_mask(mapping, clean.shape[0]) for mapping in mappings]
    owner = owners(change_map(clean, flawed) > THRESHOLD, targets)
    masks = [owner == index for index in range(len(mappings))]
    return [mask if mask.sum() >= MIN_AREA else np.zeros_like(mask) for mask in masks]
