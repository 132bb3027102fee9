"""The tool `fuse`: two entities grow into each other where they meet (fusion)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ..mapping import NotApplicable, PatchMapping
from .chance import integer
from .geometry import choose_best, farthest_points, l1_distance, nearest, shift, token_indices
from .tool import Tool


if TYPE_CHECKING:
    import torch


MIN_SHARED_PATCHES = 6
MAX_CONTAINMENT = 0.7
BAND_RADIUS = 2
SMALL_GRID = 30
NUM_CELLS = 5
MAX_OFFSET = 4

OFFSETS = [
    (row, column)
    for row in range(-MAX_OFFSET, MAX_OFFSET + 1)
    for column in range(-MAX_OFFSET, MAX_OFFSET + 1)
    if abs(row) + abs(column) <= MAX_OFFSET
]


def fuse(
    first: np.ndarray,
    second: np.ndarray,
    *,
    occupied: np.ndarray | None = None,
    band_radius: int = BAND_RADIUS,
    generator: torch.Generator,
) -> PatchMapping | NotApplicable:
    """
    Exchange content across the border of two entities (ArtiAgent §4.1).

    The entities must share at least 6 patches, and less than 0.7 of either. The band, their patches within L1 distance
    `band_radius` of the shared ones, is split into cells around 5 farthest-point seeds. Each cell borrows from the
    opposite side: from patches outside the band that only the first entity covers if the cell is nearer to the second,
    and vice versa. One rigid offset of L1 length up to 4, the one that leads most of the cell's patches to legal
    references, keeps the borrowed piece whole; the rest of the cell takes the nearest legal patch.

    Args:
        first, second (`np.ndarray` of shape `grid`, `bool`): Patches of the entities.
        occupied (`np.ndarray` of shape `grid`, `bool`, *optional*): Patches that other artifacts of the image use.
        band_radius (`int`, *optional*, defaults to 2): Width of the band in patches (L1), on either side of the shared
            ones.
        generator (`torch.Generator`): Draws the first seed, and breaks ties.

    Returns:
        [`PatchMapping`] of type `"fusion"`, or [`NotApplicable`] if the entities do not meet as required.
    """
    occupied = np.zeros_like(first) if occupied is None else occupied
    shared = first & second
    num_shared = int(shared.sum())
    if num_shared < MIN_SHARED_PATCHES:
        return NotApplicable(f"the entities share {num_shared} patches, fewer than {MIN_SHARED_PATCHES}")
    if num_shared >= MAX_CONTAINMENT * min(first.sum(), second.sum()):
        return NotApplicable(f"one entity lies within the other with {MAX_CONTAINMENT:.0%} or more of its patches")
    band = (first | second) & (l1_distance(shared) <= band_radius)
    if (band & occupied).any():
        return NotApplicable("another artifact uses patches where the entities meet")
    sides = first & ~second, second & ~first
    sources = tuple(side & ~band & ~occupied for side in sides)
    if not all(source.any() for source in sources):
        return NotApplicable("an entity has no free patch of its own away from where they meet")

    # Positive where the second entity is nearer, so that the cell borrows from the first one.
    nearer_to_second = l1_distance(sides[0]) - l1_distance(sides[1])
    pairs: list[tuple[int, int]] = []
    for cell in _cells(band, generator):
        balance = int(nearer_to_second[cell].sum())
        from_first = balance > 0 if balance else bool(integer(2, generator))
        pairs += _borrow(cell, sources[0] if from_first else sources[1], generator)
    return PatchMapping.from_pairs(pairs, first.shape, "fusion")


def band_options(grid: tuple[int, int]) -> dict[str, int]:
    """
    Choose the width of the band for a grid: the paper's two patches are a thin seam on grids of 30 and more patches a
    side, but a third of the image on one of 16.

    Args:
        grid (`tuple[int, int]`): Rows and columns of tokens.

    Returns:
        `dict[str, int]`: The argument `band_radius` of [`fuse`].
    """
    return {"band_radius": BAND_RADIUS if min(grid) >= SMALL_GRID else 1}


def _cells(band: np.ndarray, generator: torch.Generator) -> Iterator[np.ndarray]:
    """Yield the L1 Voronoi cells of seeds spread over `band`, each a patch set."""
    members = np.argwhere(band)
    seeds = farthest_points(band, NUM_CELLS, generator)
    owners = np.abs(members[:, None] - seeds).sum(axis=2).argmin(axis=1)
    for seed in range(NUM_CELLS):
        cell = np.zeros_like(band)
        cell[tuple(members[owners == seed].T)] = True
        yield cell


def _borrow(cell: np.ndarray, source: np.ndarray, generator: torch.Generator) -> list[tuple[int, int]]:
    """Return `(target, reference)` token indices for every patch of `cell`."""
    legal = [cell & shift(source, (-row, -column)) for row, column in OFFSETS]
    best = choose_best([int(patches.sum()) for patches in legal], generator)
    rigid, loose = np.argwhere(legal[best]), np.argwhere(cell & ~legal[best])
    targets = np.concatenate([rigid, loose])
    references = np.concatenate([rigid + OFFSETS[best], nearest(loose, source, generator)])
    return list(zip(token_indices(targets, cell.shape), token_indices(references, cell.shape), strict=True))


FUSE = Tool(
    name="fuse",
    artifact_type="fusion",
    description="two entities grow into each other where they meet",
    works_on="entities",
    function=fuse,
    options_for=band_options,
)
