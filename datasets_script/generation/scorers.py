"""Loading of the scorer that a search chooses by."""

from __future__ import annotations

from ..detection.pixel.detector import PixelDetector
from ..detection.scoring import DetectorScorer, Scorer, load_reward
from ..utils.errors import renamed
from .settings import GenerationSettings


def load_scorer(settings: GenerationSettings, device: str) -> Scorer | None:
    """
    Load the scorer that a search chooses by.

    Args:
        settings (`GenerationSettings`): Settings of the run.
        device (`str`): Device of the scorer.

    Returns:
        `Scorer`: The scorer; `None` if the settings name none.

    Raises:
        ArgumentError: It cannot be loaded.
    """
    if settings.reward:
        return load_reward(settings.reward, device)
    if not settings.detector:
        return None
    with renamed("model", "detector"):
        return DetectorScorer(PixelDetector.from_pretrained(settings.detector, device=device))
