"""A prediction for one image, and files of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .boxes import Box


@dataclass(frozen=True)
class Prediction:
    """
    What a model says of one image of a benchmark.

    Attributes:
        id (`str`): Of the image.
        has_artifact (`bool`): `None` where the answer could not be parsed or was not asked for.
        boxes (`tuple[Box, ...]`): `(x_min, y_min, x_max, y_max)`, exclusive maxima, pixels of the image as stored.
            `None` where the model was not asked for places or its answer could not be parsed, empty where it names
            none.
        mask (`Path`): An image of the image's size in place of boxes: a mask or a heat map, as
            [`evaluate_metrics.functional.regions.heat_map`] reads it.
        explanation (`str`): What is wrong with the image; `None` where it was not asked for.
        classes (`tuple[str, ...]`): Classes of the artifacts (SynArtifact); `None` where they were not asked for.
        failures (`tuple[str, ...]`): Why an answer could not be parsed, one for each that could not:
            `"question: reason"`, with a question that was asked, `"answer"` for a single text, or `"boxes"`.
    """

    id: str
    has_artifact: bool | None = None
    boxes: tuple[Box, ...] | None = None
    mask: Path | None = None
    explanation: str | None = None
    classes: tuple[str, ...] | None = None
    failures: tuple[str, ...] = ()

    @property
    def failed_questions(self) -> frozenset[str]:
        """What `failures` are of."""
        return frozenset(failure.partition(": ")[0] for failure in self.failures)
