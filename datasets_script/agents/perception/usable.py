"""Selection of what can be used of a perception on the image that the model sees."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from diffusers_artifact.tools import bbox_of_mask

from ...schema.perception import Entity, Part, Perception
from ...utils.photos import SourceTransform


PartOrEntity = TypeVar("PartOrEntity", Part, Entity)


def apply_to_perception(perception: Perception, transform: SourceTransform) -> Perception:
    """
    Transform a perception of the source photo to the image that the model sees. Boxes are those of the transformed
    masks. Parts and entities outside the crop are dropped, and so are the parts of such an entity.

    Args:
        perception (`Perception`): In pixels of the source photo.
        transform (`SourceTransform`): Crop and resize of the photo.
    """
    entities = []
    for entity in perception.entities:
        moved = _move(entity, transform)
        if moved is not None:
            parts = (_move(part, transform) for part in entity.parts)
            entities.append(replace(moved, parts=tuple(part for part in parts if part is not None)))
    return replace(perception, entities=tuple(entities))


def filter_perception(
    perception: Perception,
    patch_size: int = 16,
    min_part_patches: int = 2,
    min_entity_share: float = 0.01,
    max_part_share: float = 0.5,
    min_part_span: int = 2,
) -> tuple[Perception, list[str]]:
    """
    Keep what is large enough to carry an artifact on the image that the model sees (ArtiAgent §3).

    Args:
        perception (`Perception`): In pixels of that image.
        patch_size (`int`, *optional*, defaults to 16): Side of a patch in pixels.
        min_part_patches (`int`, *optional*, defaults to 2): A part has more pixels than this many patches: with
            patches of 16 px more than 512, as in the paper.
        min_entity_share (`float`, *optional*, defaults to 0.01): Least share of the image that an entity covers.
        max_part_share (`float`, *optional*, defaults to 0.5): Greatest share of the image that a part covers.
        min_part_span (`int`, *optional*, defaults to 2): Least number of rows, and of columns, of patches that a part
            touches.

    Returns:
        `tuple[Perception, list[str]]`: The entities and parts kept, and for each dropped one its reason. Parts of a
        dropped entity are dropped with it and not listed.
    """
    entities, reasons = [], []
    for entity in perception.entities:
        name, share = f"{entity.name} #{entity.instance_id}", entity.mask.mean()
        if share < min_entity_share:
            reasons.append(f"{name}: {share:.2%} of the image, under {100 * min_entity_share:.3g}%")
            continue
        kept = []
        for part in entity.parts:
            reason = _part_reason(part, patch_size, min_part_patches * patch_size**2, max_part_share, min_part_span)
            if reason:
                reasons.append(f"{name}, {part.name} #{part.instance_id}: {reason}")
            else:
                kept.append(part)
        entities.append(replace(entity, parts=tuple(kept)))
    return replace(perception, entities=tuple(entities)), reasons


def _part_reason(part: Part, patch_size: int, min_pixels: int, max_share: float, min_span: int) -> str:
    """Return why a part cannot be used; empty if it can."""
    pixels = int(part.mask.sum())
    if pixels <= min_pixels:
        return f"{pixels} px, not over {min_pixels}"
    if pixels > max_share * part.mask.size:
        return f"{pixels / part.mask.size:.0%} of the image, over {max_share:.0%}"
    x_min, y_min, x_max, y_max = (int(value) for value in part.bbox)
    rows = (y_max - 1) // patch_size - y_min // patch_size + 1
    columns = (x_max - 1) // patch_size - x_min // patch_size + 1
    if min(rows, columns) < min_span:
        return f"{rows}x{columns} patches, under {min_span}x{min_span}"
    return ""


def _move(region: PartOrEntity, transform: SourceTransform) -> PartOrEntity | None:
    mask = transform.apply_mask(region.mask)
    return replace(region, mask=mask, bbox=bbox_of_mask(mask)) if mask.any() else None
