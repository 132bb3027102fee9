"""The answer of a detector about one image."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .boxes import Box


@dataclass(frozen=True)
class DetectedRegion:
    """
    A region with an artifact.

    Attributes:
        box (`tuple[float, float, float, float]`): `(x_min, y_min, x_max, y_max)`, exclusive maxima, pixels of the
            image.
        label (`str`): What is wrong there, in the detector's words; empty if it does not say.
        score (`float`, *optional*): How sure the detector is, in [0, 1]; `None` if it does not say.
        mask (`np.ndarray` of shape `(height, width)`, `bool`, *optional*): Pixels of the region, in the image; `None`
            if the detector gives a box alone.
    """

    box: Box
    label: str = ""
    score: float | None = None
    mask: np.ndarray | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class MapMeasures:
    """
    What an artifact map says of the whole image.

    Attributes:
        smoothed_maximum (`float`): Highest mean of a small square of the map, in [0, 1]. A single pixel, which decides
            the plain maximum, hardly moves it.
        mean (`float`): Mean of the map, in [0, 1].
        share (`float`): Share of the image above the detector's threshold, in [0, 1].
    """

    smoothed_maximum: float
    mean: float
    share: float


@dataclass(frozen=True)
class Detection:
    """
    Answer of a detector about one image: whether it has artifacts, where, and why.

    Attributes:
        size (`tuple[int, int]`): Width and height of the upright image in pixels.
        has_artifact (`bool`, *optional*): `None` if the answer could not be read, which is not a "no".
        regions (`tuple[DetectedRegion, ...]`, *optional*): In pixels of the upright image. Empty if the detector names
            none or says that there are no artifacts; `None` if it was not asked or its answer could not be read.
        explanation (`str`, *optional*): What is wrong; `None` if nothing is, if the detector was not asked, or if its
            answer could not be read.
        answers (`dict[str, str]`): The raw answers, by question.
        failures (`tuple[str, ...]`): Which answers are missing or could not be read, and why.
        score (`float`, *optional*): Probability in [0, 1] that the image has artifacts; `None` if the detector does
            not say.
        measures (`MapMeasures`, *optional*): Of detectors that give a map.
        artifact_map (`np.ndarray` of shape `(height, width)`, `float32`, *optional*): Probability in [0, 1] of each
            pixel of being part of an artifact; `None` if the detector gives no map.
    """

    size: tuple[int, int]
    has_artifact: bool | None
    regions: tuple[DetectedRegion, ...] | None
    explanation: str | None
    answers: dict[str, str]
    failures: tuple[str, ...] = ()
    score: float | None = None
    measures: MapMeasures | None = None
    artifact_map: np.ndarray | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """
        Return the detection as `artiagent detect` writes it, JSON-serialisable: without masks and map, and with scores
        and measures of detectors that have them.
        """
        regions = self.regions
        return {
            "width": self.size[0],
            "height": self.size[1],
            "has_artifact": self.has_artifact,
            **({} if self.score is None else {"score": self.score}),
            **({} if self.measures is None else {"measures": asdict(self.measures)}),
            "regions": None if regions is None else [_region_to_dict(region) for region in regions],
            "explanation": self.explanation,
            "answers": self.answers,
            "failures": list(self.failures),
        }


def _region_to_dict(region: DetectedRegion) -> dict[str, Any]:
    content: dict[str, Any] = {"box": list(region.box), "label": region.label}
    return content if region.score is None else {**content, "score": region.score}
