"""
Guards: what must not get worse while what is trained on gets better.

A detector or a reward that is trained against is always silenced, repaired or not: a trial that lowered its map by
87 % also lowered that of a detector of another trunk, while all images became blurred grids. Sharpness, blockiness and
the model's own loss on real images saw it. So each guard is measured before training and then again and again, on the
same prompts and seeds, and a run stops when one leaves its band.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

import torch

from datasets_script.comparison.text_image import TextImageMeasure
from datasets_script.detection.pixel.detector import PixelDetector
from datasets_script.utils.errors import ArgumentError
from datasets_script.utils.seeds import derive_seed
from training.denoiser.pictures import Pictures
from training.denoiser.rollout import Conditions, Denoiser


Measure = Callable[[Pictures], float]
"""Measures pictures, or the model that drew them."""


@dataclass(frozen=True)
class Band:
    """
    How far a value may move from the one before training.

    Args:
        low, high (`float`, *optional*): Least and greatest relative change, such as -0.1 and 0.1; `None` for no limit.
        floor (`float`, *optional*, defaults to 0): Smaller values before training count as this much, so that little
            of nothing is no large change.
    """

    low: float | None = None
    high: float | None = None
    floor: float = 0.0

    def change(self, before: float, now: float) -> float:
        """Return the relative change of a value."""
        return (now - before) / max(abs(before), self.floor, 1e-12)

    def holds(self, before: float, now: float) -> bool:
        """Return whether a value lies in the band; NaN never does."""
        change = self.change(before, now)
        return (
            change == change
            and (self.low is None or change >= self.low)
            and (self.high is None or change <= self.high)
        )

    def __str__(self) -> str:
        ends = ("no limit" if end is None else f"{100 * end:+g}%" for end in (self.low, self.high))
        return " to ".join(ends)


BANDS: Mapping[str, Band] = {
    "second_detector": Band(high=0.1, floor=0.01),
    "sharpness": Band(low=-0.15, high=0.25),
    "blockiness": Band(high=0.1),
    "diversity": Band(low=-0.15),
    "denoising_loss": Band(high=0.02),
    "pickscore": Band(low=-0.02),
}
"""Bands of the guards; a recipe may set others."""


@dataclass(frozen=True)
class Reading:
    """
    Values of the guards at a step.

    Attributes:
        step (`int`): The step, 0 before training.
        score (`float`): What the best step is chosen by, higher for better.
        values (`Mapping[str, float]`): Value of each guard.
        broken (`str`, *optional*): Which guard left its band, in words; `None` if all hold.
    """

    step: int
    score: float
    values: Mapping[str, float]
    broken: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the content, JSON-serialisable."""
        return asdict(self)


class Guards:
    """
    Guards of a run.

    Args:
        measures (`Mapping[str, Callable]`): What is measured, by name; of several of a kind, with a colon and more.
        bands (`Mapping[str, Band]`, *optional*): Band of each kind; one without is measured and not limited.
    """

    def __init__(self, measures: Mapping[str, Measure], bands: Mapping[str, Band] = BANDS) -> None:
        self.measures = dict(measures)
        kinds = {name: name.partition(":")[0] for name in self.measures}
        self.bands = {name: bands[kind] for name, kind in kinds.items() if kind in bands}

    def read(self, step: int, score: float, pictures: Pictures, before: Reading | None) -> Reading:
        """
        Measure.

        Args:
            step (`int`): The step.
            score (`float`): The score of the pictures.
            pictures (`Pictures`): Drawn with the weights of this step.
            before (`Reading`, *optional*): The reading before training; `None` if this is it.
        """
        values = {name: measure(pictures) for name, measure in self.measures.items()}
        return Reading(step, score, values, None if before is None else self._broken(before.values, values))

    def to_dict(self, before: Reading, chosen: Reading) -> list[dict[str, Any]]:
        """Return each guard with its band and its values before training and at the chosen step."""
        return [
            {
                "guard": name,
                "band": str(self.bands[name]) if name in self.bands else "not limited",
                "before": round(before.values[name], 6),
                "after": round(chosen.values[name], 6),
            }
            for name in self.measures
        ]

    def _broken(self, before: Mapping[str, float], now: Mapping[str, float]) -> str | None:
        for name, band in self.bands.items():
            if not band.holds(before[name], now[name]):
                change = band.change(before[name], now[name])
                ends = f"from {before[name]:.4g} to {now[name]:.4g}"
                return f"{name} moved by {change:+.1%}, {ends}, where {band} is allowed"
        return None


def picture_measures(denoiser: Denoiser) -> dict[str, Measure]:
    """Return the guards that need nothing but pictures: sharpness, blockiness and diversity."""
    side = denoiser.token_pixels
    return {
        "sharpness": lambda pictures: sharpness(pictures.images),
        "blockiness": lambda pictures: blockiness(pictures.images, side),
        "diversity": lambda pictures: diversity(pictures.images, pictures.prompts),
    }


def detector_measure(detector: PixelDetector, batch_size: int = 8) -> Measure:
    """Return the mean of the map of a detector that is not trained against."""

    def measure(pictures: Pictures) -> float:
        batches = pictures.images.split(batch_size)
        with torch.no_grad():
            means = [detector.artifact_map(batch.to(detector.network.device)).mean((1, 2)) for batch in batches]
        return float(torch.cat(means).mean())

    return measure


def denoising_measure(
    denoiser: Denoiser, clean: torch.Tensor, conditions: Conditions, seed: int, batch_size: int = 4
) -> Measure:
    """
    Return the flow-matching loss, or that of noise, on real images: what the model was trained for before.

    Args:
        denoiser (`Denoiser`): The model.
        clean (`torch.Tensor` of shape `(images, channels, height, width)`): Their latents.
        conditions (`Conditions`): Of as many prompts.
        seed (`int`): Seed of noise and times, the same in each measurement.
        batch_size (`int`, *optional*, defaults to 4): Images at a time.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "denoising guard"))
    noise = torch.randn(clean.shape, generator=generator)
    times = denoiser.draw_times(len(clean), generator)

    @torch.no_grad()
    def measure(pictures: Pictures) -> float:
        losses = []
        for first in range(0, len(clean), batch_size):
            rows = slice(first, first + batch_size)
            some = conditions.select(range(len(clean))[rows])
            latents, ones_noise = clean[rows].to(denoiser.device), noise[rows].to(denoiser.device)
            losses.append(denoiser.denoising_loss(latents, some, ones_noise, times[rows]))
        return float(torch.cat(losses).mean())

    return measure


def text_measure(measure: TextImageMeasure) -> Measure:
    """Return the mean of PickScore, or of another fit of images to their prompts."""

    def mean(pictures: Pictures) -> float:
        values = measure(pictures.as_pil(), list(pictures.prompts))
        return fmean(value[measure.name] for value in values)

    return mean


def sharpness(images: torch.Tensor) -> float:
    """
    Compute the standard deviation of each image's Laplacian of four neighbours, in grey levels (0 to 255), and its
    mean: lower is blurred, far higher is noise or a grid.

    Args:
        images (`torch.Tensor` of shape `(batch, 3, height, width)`): In [0, 1].
    """
    grey = (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1) * 255
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return float((around - 4 * grey[:, 1:-1, 1:-1]).flatten(1).std(1, correction=0).mean())


def blockiness(images: torch.Tensor, side: int) -> float:
    """
    Compute how much larger steps between pixels are across the borders of tokens than elsewhere: about 1 in photos,
    3 and more where the grid of tokens is seen.

    Args:
        images (`torch.Tensor` of shape `(batch, 3, height, width)`): In [0, 1].
        side (`int`): Side of a token in pixels, at least 2; sides of images are multiples of it.
    """
    if side < 2 or min(images.shape[-2:]) <= side:
        raise ValueError(f"`side` must be at least 2 and smaller than the images, got {side}")
    ratios = []
    for axis in (-2, -1):
        steps = images.diff(dim=axis).abs()
        border = torch.arange(1, steps.shape[axis] + 1, device=images.device) % side == 0
        across, within = (steps.movedim(axis, 0)[where].mean() for where in (border, ~border))
        ratios.append(float(across / within.clamp(min=1e-6)))
    return fmean(ratios)


def diversity(images: torch.Tensor, prompts: Sequence[str]) -> float:
    """
    Compute the mean RMS difference, from 0 to 1, of two images of one prompt, and of any two if no prompt has several.

    Args:
        images (`torch.Tensor` of shape `(batch, 3, height, width)`): At least two, in [0, 1].
        prompts (`Sequence[str]`): Prompt of each.
    """
    every = list(combinations(range(len(images)), 2))
    pairs = [pair for pair in every if prompts[pair[0]] == prompts[pair[1]]] or every
    if not pairs:
        raise ArgumentError("`pictures` must be at least 2 for the guard of diversity, got 1")
    return fmean(float((images[one] - images[other]).square().mean().sqrt()) for one, other in pairs)
