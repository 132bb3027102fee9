"""What a perception agent sees: the entities of an image and their parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from PIL import Image

from ...schema.perception import Perception
from ...utils.errors import UserError


class PerceptionError(UserError, ValueError):
    """
    One image could not be perceived; the message is the reason. `raw` is what a model answered, where that was it.
    """

    def __init__(self, message: str, raw: str = "") -> None:
        super().__init__(message)
        self.raw = raw


class PerceptionModelError(UserError, OSError):
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
