"""Prediction of a model for one image of a benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .boxes import Box


@dataclass(frozen=True)
class Prediction:
    """
    Prediction of a model for one image of a benchmark.

    Attributes:
        id (`str`): Id of the image.
        has_artifact (`bool`, *optional*): `None` if the answer could not be parsed or was not asked for.
        score (`float`, *optional*): Probability in [0, 1] that the image has artifacts; `None` if it was not given.
        boxes (`tuple[Box, ...]`, *optional*): `(x_min, y_min, x_max, y_max)`, exclusive maxima, pixels of the image as
            stored. Empty if the model names none; `None` if it was not asked for boxes or its answer could not be
            parsed.
        mask (`Path`, *optional*): A mask or heat map as an image file of the image's size, as
            [`evaluate_metrics.functional.regions.heat_map`] reads it. With boxes too, pixels are those of the mask
            and instances those of the boxes.
        artifact_map (`Path`, *optional*): Probability of each pixel of being part of an artifact, as an image file of
            the image's size, which is scored as it is, without a threshold.
        explanation (`str`, *optional*): What is wrong with the image; `None` if it was not asked for.
        classes (`tuple[str, ...]`, *optional*): Classes of the artifacts (SynArtifact); `None` if they were not asked
            for.
        failures (`tuple[str, ...]`): For each answer that could not be parsed `"question: reason"`. The question is
            the task that was asked, `"answer"` for a single text, or `"boxes"`.
    """

    id: str
    has_artifact: bool | None = None
    boxes: tuple[Box, ...] | None = None
    mask: Path | None = None
    artifact_map: Path | None = None
    score: float | None = None
    explanation: str | None = None
    classes: tuple[str, ...] | None = None
    failures: tuple[str, ...] = ()

    @property
    def failed_questions(self) -> frozenset[str]:
        """Return the questions that `failures` are about."""
        return frozenset(failure.partition(": ")[0] for failure in self.failures)
