"""What every detector of artifacts can do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, overload

from ..schema.detection import Detection
from .images import ImageInput


class Detector(Protocol):
    """
    A detector of structural artifacts, such as [`~datasets_script.detection.detector.ArtifactDetector`] and
    [`~datasets_script.detection.pixel.detector.PixelDetector`]. Commands and figures take any.
    """

    @overload
    def __call__(self, images: ImageInput) -> Detection: ...

    @overload
    def __call__(self, images: list[ImageInput]) -> list[Detection]: ...

    def __call__(self, images: ImageInput | list[ImageInput]) -> Detection | list[Detection]:
        """Detect artifacts in an image, or in each image of a list."""
        ...

    def stream(self, images: Iterable[ImageInput]) -> Iterator[Detection]:
        """Detect artifacts in any number of images, with at most one batch of them open at a time."""
        ...
