"""Records of the annotation: an item, a marked region, answers, and what an annotator holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from ..schema.boxes import Box
from ..utils.errors import UserError
from ..utils.run_lengths import decode_mask, encode_mask


Verdict = Literal["yes", "no", "unsure"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""Answers of the first phase: whether an image has artifacts."""

Phase = Literal["classify", "decide", "mark"]
PHASES: tuple[Phase, ...] = get_args(Phase)
"""First phase; an admin's decision of what the first phase left open; second phase."""


@dataclass(frozen=True)
class Mark:
    """
    A region that an annotator marked.

    Attributes:
        type (`str`): One of the queue's types.
        box (`tuple[float, float, float, float]`): `(x_min, y_min, x_max, y_max)`, exclusive maxima, in pixels.
        caption (`str`): What is wrong there.
        counts (`str`): COCO's run-length encoding of its mask; empty if only the box was drawn.
    """

    type: str
    box: Box
    caption: str = ""
    counts: str = ""

    @classmethod
    def of_mask(cls, type: str, mask: np.ndarray, caption: str = "") -> Mark:
        """
        Return the mark of a painted region.

        Args:
            type (`str`): One of the queue's types.
            mask (`np.ndarray` of shape `(height, width)`, `bool`): The region, at least one pixel.
            caption (`str`, *optional*): What is wrong there.
        """
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
        return cls(type, box, caption, encode_mask(mask)["counts"])

    def mask(self, size: tuple[int, int]) -> np.ndarray | None:
        """Return the mask of shape `(height, width)`, `bool`, in an image of `(width, height)`, if there is one."""
        if not self.counts:
            return None
        return decode_mask({"size": size[::-1], "counts": self.counts})

    def as_dict(self) -> dict[str, Any]:
        """Return the mark as the queue stores it, JSON-serialisable."""
        stored = {"type": self.type, "box": list(self.box), "caption": self.caption}
        return stored | ({"counts": self.counts} if self.counts else {})

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Mark:
        """Return the mark that [`as_dict`] stored."""
        x_min, y_min, x_max, y_max = stored["box"]
        return cls(stored["type"], (x_min, y_min, x_max, y_max), stored["caption"], stored.get("counts", ""))


@dataclass(frozen=True)
class Marking:
    """
    Answer of the second phase.

    Attributes:
        marks (`tuple[Mark, ...]`): The regions.
        explanation (`str`): What is wrong with the image as a whole.
    """

    marks: tuple[Mark, ...] = ()
    explanation: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the answer as the queue stores it, JSON-serialisable."""
        return {"marks": [mark.as_dict() for mark in self.marks], "explanation": self.explanation}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Marking:
        """Return the answer that [`as_dict`] stored."""
        return cls(tuple(map(Mark.from_dict, stored["marks"])), stored["explanation"])

    def check(self, size: tuple[int, int], types: tuple[str, ...]) -> None:
        """
        Refuse what cannot be scored.

        Args:
            size (`tuple[int, int]`): `(width, height)` of the image.
            types (`tuple[str, ...]`): Types of the queue.

        Raises:
            UserError: There is no mark, one has another type, is empty, or leaves the image.
        """
        if not self.marks:
            raise UserError("an image with artifacts must have a marked region, got none; mark one, or pass it back")
        for number, mark in enumerate(self.marks, start=1):
            x_min, y_min, x_max, y_max = mark.box
            if mark.type not in types:
                raise UserError(f"region {number} must be of type {', '.join(types)}, got '{mark.type}'; choose one")
            if not (0 <= x_min < x_max <= size[0] and 0 <= y_min < y_max <= size[1]):
                raise UserError(
                    f"region {number} must lie in the image of {size[0]} × {size[1]} pixels, got {list(mark.box)}"
                )


@dataclass(frozen=True)
class Item:
    """
    An image to annotate.

    Attributes:
        id (`str`): File name of the image, unique in the queue.
        file (`str`): File in the queue's folder, relative to it.
        size (`tuple[int, int]`): `(width, height)` in pixels.
        prompt (`str`): What the image was generated from, if known.
        draft (`Marking`, *optional*): Regions to begin with, of a model or an earlier annotation.
        verdict (`str`): `"yes"` or `"no"` once it is settled, `"open"` where an admin has to decide, else empty.
    """

    id: str
    file: str
    size: tuple[int, int]
    prompt: str = ""
    draft: Marking | None = None
    verdict: str = ""


@dataclass(frozen=True)
class Claim:
    """
    An item that an annotator holds: nobody else gets it in this phase until it is answered or the time is over.

    Attributes:
        phase (`str`): One of `PHASES`.
        item (`Item`): The item.
        annotator (`str`): Name of the annotator.
        holder (`str`): What holds it: one for each open page.
        others (`Mapping[str, Any]`): For an admin, the answers of the first phase by annotator.
    """

    phase: Phase
    item: Item
    annotator: str
    holder: str
    others: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """
    An answer that was given.

    Attributes:
        phase (`str`): One of `PHASES`.
        item (`str`): Id of the item.
        annotator (`str`): Name of the annotator.
        content (`str` or `Marking`): Verdict, or regions with their explanation.
        seconds (`float`): Time from when the item was handed out.
        at (`str`): When it was given, ISO 8601, UTC.
    """

    phase: Phase
    item: str
    annotator: str
    content: str | Marking
    seconds: float
    at: str
