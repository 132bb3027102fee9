"""Settings that generated images depend on."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from diffusers_artifact.best_of_n import check_best_of
from diffusers_artifact.presets import EMBEDDED

from ..engine.settings import LoadSettings
from ..utils.errors import ArgumentError, check_at_least


# Pipelines round other sizes down, most of them without an error.
_MULTIPLE = 16
_SIZE = re.compile(r"(\d+)x(\d+)")


@dataclass(frozen=True)
class GenerationSettings:
    """
    Settings of a run of `artiagent generate`.

    Args:
        model (`str`): Folder, or id on the Hub, of a text-to-image pipeline.
        revision (`str`, *optional*): Branch, tag or commit of a repository.
        best_of (`int`, *optional*, defaults to 1): Candidates of the last round of the search, a power of two.
        reward, detector (`str`, *optional*): What chooses the best candidate: a reward model, or a pixel detector by
            the smoothed maximum of its map; folders or ids on the Hub, or `"embedded"` for that of this package.
        images_per_prompt (`int`, *optional*, defaults to 1): Number of images of each prompt, each the best of
            candidates of its own.
        guide (`tuple[str, ...]`, *optional*): Pixel detectors that guide while images are drawn, as `detector`. Of
            several, the directions are averaged.
        guide_reward (`str`, *optional*): Reward model that guides, by itself or with `guide`.
        guide_strength (`float`, *optional*): Strength of the first step, from which it falls to 1/25 at the last; 0 is
            no guidance. By default, strengths are as published for the model; see
            [`~diffusers_artifact.detector_guidance.settings_for`].
        num_inference_steps (`int`, *optional*): Steps; by default the pipeline's.
        guidance (`float`, *optional*): Guidance scale; by default the pipeline's.
        negative_prompt (`str`, *optional*): What not to draw.
        size (`str`, *optional*): Width and height in pixels, such as `"1024x768"`; by default the pipeline's.
        seed (`int`, *optional*, defaults to 0): Seed of the run.
        keep_candidates (`bool`, *optional*, defaults to `False`): Keep the images of all candidates.
        loading (`LoadSettings`, *optional*): How the model is loaded.

    Raises:
        ArgumentError: A value is out of range, the model cannot draw from a prompt, a search has no scorer or two, or
            `guide_strength` comes without a guide.
    """

    model: str
    revision: str | None = None
    best_of: int = 1
    reward: str | None = None
    detector: str | None = None
    images_per_prompt: int = 1
    guide: tuple[str, ...] = ()
    guide_reward: str | None = None
    guide_strength: float | None = None
    num_inference_steps: int | None = None
    guidance: float | None = None
    negative_prompt: str | None = None
    size: str | None = None
    seed: int = 0
    keep_candidates: bool = False
    loading: LoadSettings = field(default_factory=LoadSettings)

    def __post_init__(self) -> None:
        if self.model == EMBEDDED:
            raise ArgumentError(
                "`model` must be a text-to-image model, such as black-forest-labs/FLUX.1-schnell, got 'embedded', "
                "which has no text encoder and edits photos alone"
            )
        try:
            check_best_of(self.best_of)
        except ValueError as error:
            raise ArgumentError(str(error)) from error
        if self.reward and self.detector:
            raise ArgumentError("`reward` and `detector` both choose the best candidate, got both; leave out one")
        if self.best_of > 1 and not (self.reward or self.detector):
            raise ArgumentError(f"`best_of` {self.best_of} must come with `reward` or `detector`, got neither")
        self._check_guidance()
        for name in ("images_per_prompt", "num_inference_steps"):
            check_at_least(name, getattr(self, name))
        check_at_least("guidance", self.guidance, 0)
        self.width_and_height()

    @property
    def is_guided(self) -> bool:
        """Return whether a detector or a reward guides."""
        return bool(self.guide or self.guide_reward)

    def _check_guidance(self) -> None:
        if self.guide_strength is None:
            return
        if not self.is_guided:
            raise ArgumentError("`guide_strength` must come with `guide` or `guide_reward`, got neither")
        if not 0 <= self.guide_strength < math.inf:
            raise ArgumentError(f"`guide_strength` must be at least 0 and finite, got {self.guide_strength}")

    def width_and_height(self) -> tuple[int, int] | None:
        """Return width and height in pixels; `None` for the pipeline's own."""
        if self.size is None:
            return None
        match = _SIZE.fullmatch(self.size)
        width, height = (int(match[1]), int(match[2])) if match else (0, 0)
        if not min(width, height) or width % _MULTIPLE or height % _MULTIPLE:
            raise ArgumentError(
                f"`size` must be WIDTHxHEIGHT in multiples of {_MULTIPLE} px, such as 1024x768, got '{self.size}'"
            )
        return width, height
