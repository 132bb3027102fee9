"""Photos reduced before models see them, and what was perceived on them mapped back."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
from PIL import Image

from diffusers_artifact.tools import bbox_of_mask

from ...schema.perception import Entity, Part, Perception


PartOrEntity = TypeVar("PartOrEntity", Part, Entity)


def reduced(image: Image.Image, max_long_side: int) -> Image.Image:
    """Return an image with a long side of at most so many pixels; a smaller one as it is."""
    if max(image.size) <= max_long_side:
        return image
    small = image.copy()
    small.thumbnail((max_long_side, max_long_side), Image.Resampling.LANCZOS)
    return small


def enlarged(perception: Perception, size: tuple[int, int]) -> Perception:
    """
    Map a perception of a reduced image back to the image. Masks grow by nearest neighbours, and boxes are those of the
    masks.

    Args:
        perception (`Perception`): In pixels of the reduced image.
        size (`tuple[int, int]`): `(width, height)` of the image.
    """
    return replace(
        perception,
        entities=tuple(
            replace(_enlarged(entity, size), parts=tuple(_enlarged(part, size) for part in entity.parts))
            for entity in perception.entities
        ),
    )


def _enlarged(item: PartOrEntity, size: tuple[int, int]) -> PartOrEntity:
    if item.mask.shape == size[::-1]:
        return item
    mask = np.asarray(Image.fromarray(item.mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)) > 0
    return replace(item, mask=mask, bbox=bbox_of_mask(mask))
