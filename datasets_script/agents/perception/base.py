"""Interface of perception backends, and their errors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from ...schema.perception import Perception
from ...utils.errors import UserError


if TYPE_CHECKING:
    from torch import nn


class PerceptionError(UserError, ValueError):
    """
    One image could not be perceived. The message gives the reason, `raw` the answer of a model if that was the reason.
    """

    def __init__(self, message: str, raw: str = "") -> None:
        super().__init__(message)
        self.raw = raw


class PerceptionModelError(UserError, OSError):
    """A model of a perception backend cannot be loaded; the message says which, and what to do."""


class PerceptionAgent(ABC):
    """A perception backend."""

    @abstractmethod
    def perceive(self, image: Image.Image, source_id: str) -> Perception:
        """
        Find the entities of an image and their parts.

        Args:
            image (`PIL.Image.Image`): RGB, as opened, before any resizing.
            source_id (`str`): Name of the file relative to the source folder, with forward slashes.

        Returns:
            `Perception`: In pixels of `image`.

        Raises:
            PerceptionError: The image cannot be perceived.
        """

    def perceive_batch(
        self, images: Sequence[Image.Image], source_ids: Sequence[str]
    ) -> list[Perception | PerceptionError]:
        """
        Perceive several images, which backends with a model process together.

        Args:
            images (`Sequence[PIL.Image.Image]`): See [`perceive`].
            source_ids (`Sequence[str]`): See [`perceive`].

        Returns:
            `list[Perception | PerceptionError]`: For each image its perception, or why there is none.
        """
        results: list[Perception | PerceptionError] = []
        for image, source_id in zip(images, source_ids, strict=True):
            try:
                results.append(self.perceive(image, source_id))
            except PerceptionError as error:
                results.append(error)
        return results

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """Networks of its own that may be moved between devices, beside those of the vision-language model."""
        return ()

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return what a run records of the backend: its name, models, revisions and thresholds, JSON-serialisable."""
