"""Scores of images by a detector, for the search of good ones."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

from PIL import Image

from ..utils.errors import renamed
from .pixel.detector import PixelDetector


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


def load_reward(model: str, device: str | None) -> Scorer:
    """
    Load a reward model.

    Args:
        model (`str`): Folder, or id on the Hub.
        device (`str`, *optional*): Device.

    Raises:
        ArgumentError: It cannot be loaded.
    """
    with renamed("model", "reward"):
        reward: Scorer = import_module("datasets_script.detection.reward.model").RewardModel.from_pretrained(
            model, device=device
        )
        return reward
