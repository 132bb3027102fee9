"""The tool `add`: a part appears a second time beside itself (duplication)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ..mapping import NotApplicable, PatchMapping
from .geometry import choose_best, is_on_grid, l1_distance, shift, token_indices
from .tool import Tool


if TYPE_CHECKING:
    import torch


DISTANCE_PENALTY = 0.05
MAX_SELF_OVERLAP = 0.25


def add(
    part: np.ndarray,
    entity: np.ndarray,
    *,
    same_parts: np.ndarray | None = None,
    occupied: np.ndarray | None = None,
    radius: int = 2,
    generator: torch.Generator,
) -> PatchMapping | NotApplicable:
    r"""
    Copy a part to the best place in a band around it (ArtiAgent §4.1).

    A shift Δ of the part scores $(3 - r_{self} - r_{entity} - r_{same}) / (1 + 0.05 \lVert Δ \rVert_1)$, where the
    ratios are the shares of the copy that fall on the part itself, on the rest of its entity and on other instances
    of the same part. All shares are of the patches of the copy that lie on the grid. Copies are ruled out if they

    - do not touch the rest of the entity, by overlap or a common edge (or the part itself, if nothing else of the
      entity is visible): a copy beside the part nearly always touches the part;
    - lose more than half of their patches at the border of the image;
    - cover the part itself with more than a quarter of their patches. Inside an entity the score alone prefers such
      copies, because patches that miss the part fall on the rest of the entity at the same cost, but they look like a
      smear and not like a second instance;
    - overlap `occupied`.

    Of equal scores, the copy with most patches off the part wins, then chance.

    Args:
        part (`np.ndarray` of shape `grid`, `bool`): Patches of the part; the references.
        entity (`np.ndarray` of shape `grid`, `bool`): Patches of the entity that the part belongs to.
        same_parts (`np.ndarray` of shape `grid`, `bool`, *optional*): Patches of other instances of the same part.
        occupied (`np.ndarray` of shape `grid`, `bool`, *optional*): Patches that other artifacts of the image use.
        radius (`int`, *optional*, defaults to 2): Width of the band in patches. If the part's centre is *k* patches
            from its outline, the copy's centre lies more than *k* and at most *k* + `radius` patches (L1) from the
            part.
        generator (`torch.Generator`): Breaks ties.

    Returns:
        [`PatchMapping`] of type `"duplication"`, or [`NotApplicable`] if every copy is ruled out.
    """
    same_parts = np.zeros_like(part) if same_parts is None else same_parts
    occupied = np.zeros_like(part) if occupied is None else occupied
    if not part.any():
        return NotApplicable("the part covers no patch")
    if (part & occupied).any():
        return NotApplicable("another artifact uses patches of the part")
    rest = entity & ~part
    within_reach = l1_distance(rest if rest.any() else part) <= 1

    offsets, keys = [], []
    for offset in _candidate_offsets(part, radius, generator):
        copy = shift(part, offset)
        size, on_part = int(copy.sum()), int((copy & part).sum())
        if 2 * size < part.sum() or on_part > MAX_SELF_OVERLAP * size:
            continue
        if (copy & occupied).any() or not (copy & within_reach).any():
            continue
        overlap = on_part + int((copy & rest).sum()) + int((copy & same_parts).sum())
        distance = abs(offset[0]) + abs(offset[1])
        offsets.append(offset)
        keys.append(((3 - overlap / size) / (1 + DISTANCE_PENALTY * distance), size - on_part))
    if not offsets:
        return NotApplicable("no free place beside the part where a copy would touch the entity")

    references = np.argwhere(part)
    targets = references + offsets[choose_best(keys, generator)]
    kept = is_on_grid(targets, part.shape)
    pairs = zip(token_indices(targets[kept], part.shape), token_indices(references[kept], part.shape), strict=True)
    return PatchMapping.from_pairs(pairs, part.shape, "duplication")


def _candidate_offsets(part: np.ndarray, radius: int, generator: torch.Generator) -> Iterator[tuple[int, int]]:
    points = np.argwhere(part)
    centre = points[choose_best((-np.abs(points - points.mean(axis=0)).sum(axis=1)).tolist(), generator)]
    # A part that the border of the image cuts has its outline there.
    outside = ~np.pad(part, 1)
    inner_radius = l1_distance(outside)[tuple(centre + 1)] - 1
    distance = l1_distance(part)
    for row, column in np.argwhere((distance > inner_radius) & (distance <= inner_radius + radius)) - centre:
        yield int(row), int(column)


ADD = Tool(
    name="add",
    artifact_type="duplication",
    description="a part appears a second time beside itself",
    works_on="peripheral",
    function=add,
    avoids_same_parts=True,
)
