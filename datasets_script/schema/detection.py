"""The answer of a detector about one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .boxes import Box


@dataclass(frozen=True)
class DetectedRegion:
    """
    A region with an artifact.

    Attributes:
        box (`tuple[float, float, float, float]`): `(x_min, y_min, x_max, y_max)`, exclusive maxima, pixels of the
            image.
        label (`str`): What is wrong there, in the detector's words; empty if it does not say.
    """

    box: Box
    label: str = ""


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
    """

    size: tuple[int, int]
    has_artifact: bool | None
    regions: tuple[DetectedRegion, ...] | None
    explanation: str | None
    answers: dict[str, str]
    failures: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the detection as `artiagent detect` writes it, JSON-serialisable."""
        regions = self.regions
        return {
            "width": self.size[0],
            "height": self.size[1],
            "has_artifact": self.has_artifact,
            "regions": None if regions is None else [{"box": list(r.box), "label": r.label} for r in regions],
            "explanation": self.explanation,
            "answers": self.answers,
            "failures": list(self.failures),
        }
