"""What a detector says of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .boxes import Box


@dataclass(frozen=True)
class DetectedRegion:
    """
    A region with an artifact.

    Attributes:
        box (`tuple[float, float, float, float]`): `(x_min, y_min, x_max, y_max)`, exclusive maxima, px of the image.
        label (`str`): What is wrong there, in the detector's words; empty where it says nothing.
    """

    box: Box
    label: str = ""


@dataclass(frozen=True)
class Detection:
    """
    What a detector says of one image.

    Attributes:
        size (`tuple[int, int]`): Width and height of the image, upright, px.
        has_artifact (`bool`, *optional*): `None` where the answer could not be read: that is no "no".
        regions (`tuple[DetectedRegion, ...]`, *optional*): In the pixels of the upright image. Empty where the
            detector names none or says that there are no artifacts; `None` where it was not asked or its answer could
            not be read.
        explanation (`str`, *optional*): What is wrong; `None` as for regions, and where there is nothing.
        answers (`dict[str, str]`): What the detector said, by question, as it came.
        failures (`tuple[str, ...]`): Which answers could not be read, or did not come, and why.
    """

    size: tuple[int, int]
    has_artifact: bool | None
    regions: tuple[DetectedRegion, ...] | None
    explanation: str | None
    answers: dict[str, str]
    failures: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as `artiagent detect` writes it, JSON-serialisable."""
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
