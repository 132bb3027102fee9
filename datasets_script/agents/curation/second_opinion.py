"""Second opinion on artifacts: what a pixel detector sees of them. It is recorded, and rejects nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ...schema.pair import Artifact
from .thresholds import Verdict
from .variant import Variant


if TYPE_CHECKING:
    from ...detection.pixel.detector import PixelDetector


def with_second_opinion(
    variants: Sequence[Variant], verdicts: Sequence[Sequence[Verdict]], detector: PixelDetector
) -> list[list[Verdict]]:
    """
    Add to the scores of accepted artifacts what a detector sees. An artifact that it does not see is flagged by
    `detector_has_artifact` 0 and kept: the detector may be wrong, and would only ever be shown what it knows already.

    Args:
        variants (`Sequence[Variant]`): Artifact images with their clean images.
        verdicts (`Sequence[Sequence[Verdict]]`): For each variant the verdicts on its artifacts, in their order.
        detector (`PixelDetector`): The detector.

    Returns:
        `list[list[Verdict]]`: The verdicts, those that keep an artifact with `detector_inside`, `detector_clean` and
        `detector_has_artifact` in its scores.
    """
    asked = [place for place, of_variant in enumerate(verdicts) if any(verdict.kept for verdict in of_variant)]
    # Variants of one photo share the clean image.
    images = {id(image): image for place in asked for image in (variants[place].flawed, variants[place].clean)}
    maps = dict(zip(images, detector.maps(list(images.values())), strict=True))
    high = detector.record.thresholds.high
    answered = [list(of_variant) for of_variant in verdicts]
    for place in asked:
        flawed, clean = maps[id(variants[place].flawed)], maps[id(variants[place].clean)]
        answered[place] = [
            replace(verdict, artifact=_scored(verdict.artifact, flawed, clean, high)) if verdict.kept else verdict
            for verdict in answered[place]
        ]
    return answered


def _scored(artifact: Artifact, flawed: np.ndarray, clean: np.ndarray, high: float) -> Artifact:
    inside, before = (float(values[artifact.mask].max(initial=0.0)) for values in (flawed, clean))
    return replace(
        artifact,
        scores={
            **artifact.scores,
            "detector_inside": inside,
            "detector_clean": before,
            "detector_has_artifact": float(inside > high),
        },
    )
