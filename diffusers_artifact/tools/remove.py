"""The tool `remove`: a part vanishes under its surroundings (omission)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..mapping import NotApplicable, PatchMapping
from .geometry import l1_distance, nearest, token_indices
from .tool import Tool


if TYPE_CHECKING:
    import torch


def remove(
    part: np.ndarray,
    entity: np.ndarray,
    *,
    same_parts: np.ndarray | None = None,
    occupied: np.ndarray | None = None,
    radius: int = 2,
    generator: torch.Generator,
) -> PatchMapping | NotApplicable:
    """
    Fill every patch of a part from the nearest patch (L1) of its surroundings (ArtiAgent §4.1).

    The surroundings are the patches within `radius` of the part that show no other instance of it. If more than half
    of them lie outside the entity, as around an ear, only those are used; else all are, as around an eye.

    Args:
        part (`np.ndarray` of shape `grid`, `bool`): Patches of the part; the targets.
        entity (`np.ndarray` of shape `grid`, `bool`): Patches of the entity that the part belongs to.
        same_parts (`np.ndarray` of shape `grid`, `bool`, *optional*): Patches of other instances of the same part.
        occupied (`np.ndarray` of shape `grid`, `bool`, *optional*): Patches that other artifacts of the image use.
        radius (`int`, *optional*, defaults to 2): Reach of the surroundings in patches (L1).
        generator (`torch.Generator`): Chooses among equally near patches.

    Returns:
        [`PatchMapping`] of type `"omission"`, or [`NotApplicable`] if no patch of the surroundings is free.
    """
    same_parts = np.zeros_like(part) if same_parts is None else same_parts
    occupied = np.zeros_like(part) if occupied is None else occupied
    if not part.any():
        return NotApplicable("the part covers no patch")
    if (part & occupied).any():
        return NotApplicable("another artifact uses patches of the part")
    surroundings = (l1_distance(part) <= radius) & ~part & ~same_parts & ~occupied
    outside_entity = surroundings & ~entity
    pool = outside_entity if 2 * outside_entity.sum() > surroundings.sum() else surroundings
    if not pool.any():
        return NotApplicable(f"no free patch within {radius} of the part to fill it from")
    targets = np.argwhere(part)
    references = nearest(targets, pool, generator)
    pairs = zip(token_indices(targets, part.shape), token_indices(references, part.shape), strict=True)
    return PatchMapping.from_pairs(pairs, part.shape, "omission")


REMOVE = Tool(
    name="remove",
    artifact_type="omission",
    description="a part vanishes under what surrounds it",
    works_on="peripheral",
    function=remove,
    avoids_same_parts=True,
    spares_optional_parts=True,
)
