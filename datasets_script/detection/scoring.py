"""Scores of images by a detector, for the search of good ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from PIL import Image

from ..utils.errors import renamed
from .pixel.detector import PixelDetector
from .reward.model import RewardModel


class Scorer(Protocol):
    """A model that scores images; higher is better."""

    def __call__(self, images: list[Image.Image]) -> Sequence[float]:
        """
        Score images.

        Args:
            images (`list[PIL.Image.Image]`): RGB.

        Returns:
            `Sequence[float]`: A finite number for each.
        """
        ...

    def identity(self) -> dict[str, Any]:
        """Return everything that scores depend on, JSON-serialisable."""
        ...


class DetectorScorer:
    """
    Score of a pixel detector: minus the smoothed maximum of an image's artifact map, in [-1, 0].

    The smoothed maximum still ranks images that the calibrated score calls equally sure, and a single pixel hardly
    moves it.

    Args:
        detector (`PixelDetector`): The detector.
    """

    def __init__(self, detector: PixelDetector) -> None:
        self.detector = detector

    def __call__(self, images: list[Image.Image]) -> list[float]:
        """Score images; see [`Scorer`]."""
        return [-self.detector.raw_score(found) for found in self.detector.maps(images)]

    def identity(self) -> dict[str, Any]:
        """Return everything that scores depend on, JSON-serialisable."""
        return {"score": "minus smoothed maximum", "detector": self.detector.identity()}


def load_reward(model: str, device: str | None, argument: str = "reward") -> RewardModel:
    """
    Load a reward model.

    Args:
        model (`str`): Folder, or id on the Hub.
        device (`str`, *optional*): Device.
        argument (`str`, *optional*, defaults to `"reward"`): Name of the argument that names it, for messages.

    Raises:
        ArgumentError: It cannot be loaded.
    """
    with renamed("model", argument):
        return RewardModel.from_pretrained(model, device=device)


def load_detector(model: str, device: str | None, argument: str = "detector") -> PixelDetector:
    """Load a pixel detector; see [`load_reward`]."""
    with renamed("model", argument):
        return PixelDetector.from_pretrained(model, device=device)
