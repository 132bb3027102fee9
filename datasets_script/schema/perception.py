"""Result of perception: the entities of a photo and their parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np


UNNAMED = "region"
"""Name of the entities of backends that find regions and not things."""

PartLevel = Literal["peripheral", "intermediate"]


@dataclass(frozen=True, eq=False)
class Part:
    """
    A named part of an entity (ArtiAgent §3).

    Attributes:
        name (`str`): Lower-case noun, e.g. `"left ear"`.
        instance_id (`int`): Unique within the image.
        bbox (`tuple[float, float, float, float]`): `(x_min, y_min, x_max, y_max)`, exclusive maxima, in pixels.
        mask (`np.ndarray` of shape `(height, width)`, `bool`): Its pixels.
        score (`float`): Confidence in [0, 1]; 1 for annotations.
        parent (`int`): `instance_id` of the entity it belongs to.
        level (`str`): `"peripheral"` (distal, with a clear contour: can be added or removed) or `"intermediate"` (can
            be distorted).
        optional (`bool`): Whether the entity looks whole without it, as a jacket does without a badge. To remove such
            a part makes another entity, not an artifact.
    """

    name: str
    instance_id: int
    bbox: tuple[float, float, float, float]
    mask: np.ndarray
    score: float
    parent: int
    level: PartLevel
    optional: bool = False


@dataclass(frozen=True, eq=False)
class Entity:
    """
    A person, animal or thing with its parts, or a region named `UNNAMED`; fields as in [`Part`]. Whole entities can be
    fused.
    """

    name: str
    instance_id: int
    bbox: tuple[float, float, float, float]
    mask: np.ndarray
    score: float
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, eq=False)
class Perception:
    """Everything perceived in one image, in pixels of that image."""

    entities: tuple[Entity, ...]
    caption: str = ""
    notes: tuple[str, ...] = ()
    """What was found but could not be used, with the reason."""
