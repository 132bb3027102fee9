"""Settings of a comparison. This module loads neither torch nor a model, so that the command line opens at once."""

from __future__ import annotations

from dataclasses import dataclass

from ..engine.settings import PERCEPTUAL_METRICS
from ..utils.errors import check_at_least, check_choice


DIVERSITIES = (*PERCEPTUAL_METRICS, "none")
"""Distances between images of a prompt."""

PICKSCORE = "yuvalkirstain/PickScore_v1"
"""Model of PickScore (arXiv 2305.01569)."""


@dataclass(frozen=True)
class ComparisonSettings:
    """
    What is measured, and by which models.

    Args:
        detectors (`tuple[str, ...]`, *optional*, defaults to `("embedded",)`): Pixel detectors: folders, ids on the
            Hub, or `"embedded"`. The first one sorts the pictures.
        reward (`str`, *optional*): Reward model: a folder or an id on the Hub.
        clip, pickscore (`str`, *optional*): CLIP models for CLIP-T and PickScore, which need prompts.
        scores (`tuple[str, ...]`, *optional*): Scores of other programs; see
            [`~datasets_script.comparison.given_scores.read_given_scores`].
        diversity (`str`, *optional*, defaults to `"stlpips"`): Perceptual distance within a prompt, one of
            `DIVERSITIES`. Measured where prompts have several images.
        pictures (`int`, *optional*, defaults to 24): Images to show on the page.
        batch_size (`int`, *optional*, defaults to 4): Images measured together.
        n_resamples, seed (`int`, *optional*, defaults to 1000 and 0): Of the bootstrap.

    Raises:
        ArgumentError: A value is out of range, or a name is unknown.
    """

    detectors: tuple[str, ...] = ("embedded",)
    reward: str | None = None
    clip: str | None = None
    pickscore: str | None = None
    scores: tuple[str, ...] = ()
    diversity: str = "stlpips"
    pictures: int = 24
    batch_size: int = 4
    n_resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("diversity", self.diversity, DIVERSITIES)
        check_at_least("pictures", self.pictures, 0)
        check_at_least("batch_size", self.batch_size)
        check_at_least("n_resamples", self.n_resamples, 100)
