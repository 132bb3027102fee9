"""What a perception agent sees: the entities of an image and their parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image


PartLevel = Literal["peripheral", "intermediate"]


@dataclass(frozen=True, eq=False)
class Part:
    """
    A named region of an image (ArtiAgent §3).

    Attributes:
        name (`str`): Lower-case noun, e.g. `"left ear"`.
        instance_id (`int`): Unique within the image.
        bbox (`tuple[float, float, float, float]`): `(x_min, y_min, x_max, y_max)`, exclusive maxima, in pixels.
        mask (`np.ndarray` of shape `(height, width)`, `bool`): Its pixels.
        score (`float`): Confidence in [0, 1]; 1 for annotations.
        parent (`int`): `instance_id` of the entity it belongs to.
        level (`str`): `"peripheral"` (distal, clear contour: can be added or removed) or `"intermediate"` (can be
            distorted).
    """

    name: str
    instance_id: int
    bbox: tuple[float, float, float, float]
    mask: np.ndarray
    score: float
    parent: int
    level: PartLevel


@dataclass(frozen=True, eq=False)
class Entity:
    """A person, animal or thing with its parts; fields as in [`Part`]. Whole entities can be fused."""

    name: str
    instance_id: int
    bbox: tuple[float, float, float, float]
    mask: np.ndarray
    score: float
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, eq=False)
class Perception:
    """Everything perceived in one image, in the pixels of the image it was given."""

    entities: tuple[Entity, ...]
    caption: str = ""
    notes: tuple[str, ...] = ()
    """What was seen and could not be used, with the reason."""


class PerceptionError(ValueError):
    """
    One image could not be perceived; the message is the reason. `raw` is what a model answered, where that was it.
    """

    def __init__(self, message: str, raw: str = "") -> None:
        super().__init__(message)
        self.raw = raw


class PerceptionModelError(OSError):
    """A model of a perception backend cannot be had; the message says which, and what to do."""


class PerceptionAgent(ABC):
    """A perception backend. `source_id` is the file's name relative to the source folder, with forward slashes."""

    @abstractmethod
    def perceive(self, image: Image.Image, source_id: str) -> Perception:
        """
        Entities of `image` (RGB, as opened, before any resizing).

        Raises:
            PerceptionError: this image cannot be perceived.
        """

    def perceive_batch(
        self, images: Sequence[Image.Image], source_ids: Sequence[str]
    ) -> list[Perception | PerceptionError]:
        """What [`perceive`] gives or raises for each image; backends with a model take them together."""
        results: list[Perception | PerceptionError] = []
        for image, source_id in zip(images, source_ids, strict=True):
            try:
                results.append(self.perceive(image, source_id))
            except PerceptionError as error:
                results.append(error)
        return results

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What a run records of the backend: its name, models, revisions and thresholds, JSON-serialisable."""
