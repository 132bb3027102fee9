"""Loading of the scorer that a search chooses by."""

from __future__ import annotations

from ..detection.scoring import DetectorScorer, Scorer, load_detector, load_reward
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
    return DetectorScorer(load_detector(settings.detector, device))
