"""Base class of box conventions: how a model family is asked for boxes, writes them, and counts their coordinates."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...schema.boxes import Box


# Asks for a list of regions as JSON. Each convention appends how coordinates are counted.
JSON_QUESTION = (
    'Answer with JSON only, a list with an object for each region: [{"bbox_2d": [x_min, y_min, x_max, y_max], '
    '"label": "what is wrong there"}]. Coordinates are counted from the top left corner, '
)


@dataclass(frozen=True)
class Axis:
    """
    One axis of an image, placed in a range of steps.

    Attributes:
        length (`int`): Side of the image in pixels.
        offset (`int`): Pixels between the beginning of the range and that of the image.
        extent (`int`): Length of the range in pixels.
        steps (`int`): Number of steps that the range is divided into.
    """

    length: int
    offset: int
    extent: int
    steps: int

    def encode(self, low: float, high: float) -> tuple[int, int]:
        """
        Compute the steps nearest to two edges in pixels, halves upwards. A box thinner than a step, which would become
        empty, is widened to the steps around it.
        """
        _check_order(low, high)
        # Rounded, so that an edge decoded from a whole step encodes to that step again.
        exact = [round((self._inside(edge) + self.offset) * self.steps / self.extent, 6) for edge in (low, high)]
        near_low, near_high = (math.floor(step + 0.5) for step in exact)
        if near_low == near_high:
            return math.floor(exact[0]), math.ceil(exact[1])
        return near_low, near_high

    def decode(self, low: float, high: float) -> tuple[float, float]:
        """Compute the edges in pixels that two steps stand for, clipped to the image."""
        _check_order(low, high)
        return self._position(low), self._position(high)

    def _position(self, step: float) -> float:
        return self._inside(step * self.extent / self.steps - self.offset)

    def _inside(self, edge: float) -> float:
        return min(max(edge, 0.0), float(self.length))


class BoxConvention:
    """
    Box convention of a family of models. By default, boxes are in thousandths of width and height, in a list of JSON
    objects.

    Attributes:
        name (`str`): Name of the convention for users and in records.
        meaning (`str`): What the values of a box are, in words.
        question (`str`): What a model is told about the form of its answer to "where?". `WIDTH` and `HEIGHT` stand for
            those of the image in pixels. Answers are cached and recorded by this text: raise
            `datasets_script.detection.questions.VERSION` when it changes.
        families (`tuple[str, ...]`): Names of the models trained on this convention: substrings of their
            architecture's or repository's name in lower case, letters and digits only.
        decimals (`int`): Decimals of a value; 0 for whole numbers.
        counts_resized (`bool`): Whether values are pixels of the image as the processor resizes it.
    """

    name: ClassVar[str]
    meaning: ClassVar[str]
    question: ClassVar[str]
    families: ClassVar[tuple[str, ...]] = ()
    decimals: ClassVar[int] = 0
    counts_resized: ClassVar[bool] = False

    def resized(self, size: tuple[int, int], min_pixels: int, max_pixels: int) -> tuple[int, int] | None:
        """
        Return width and height of the image that the model sees, or `None` if boxes do not depend on it.

        Args:
            size (`tuple[int, int]`): Width and height of the stored image.
            min_pixels, max_pixels (`int`): Bounds of the model's image processor.
        """
        return None

    def axes(self, size: tuple[int, int], resized: tuple[int, int] | None) -> tuple[Axis, Axis]:
        """
        Divide the image's width and height into the steps of the convention.

        Args:
            size (`tuple[int, int]`): Width and height of the stored image.
            resized (`tuple[int, int]`, *optional*): See [`~datasets_script.vlm.conventions.encode_box`].
        """
        return Axis(size[0], 0, size[0], 1000), Axis(size[1], 0, size[1], 1000)

    def write_box(self, values: str) -> str:
        """Put the four values, separated by commas, in brackets or tags."""
        return f"[{values}]"

    def write_regions(self, regions: Sequence[tuple[str, str]]) -> str:
        """
        Write the correct answer to the question.

        Args:
            regions (`Sequence[tuple[str, str]]`): At least one box, as [`format`] writes it, with what is wrong there.
        """
        # Dumping the whole list as JSON would drop trailing zeros of a convention's decimals.
        objects = [f'{{"bbox_2d": {box}, "label": {json.dumps(label, ensure_ascii=False)}}}' for box, label in regions]
        return f"[{', '.join(objects)}]"

    def encode(
        self, box: Box, size: tuple[int, int], resized: tuple[int, int] | None = None
    ) -> tuple[float | int, ...]:
        """Compute the four numbers of a box; see [`~datasets_script.vlm.conventions.encode_box`]."""
        horizontal, vertical = self._checked_axes(size, resized)
        low_x, high_x = horizontal.encode(box[0], box[2])
        low_y, high_y = vertical.encode(box[1], box[3])
        steps = (low_x, low_y, high_x, high_y)
        if not self.decimals:
            return steps
        return tuple(round(step / 10**self.decimals, self.decimals) for step in steps)

    def decode(
        self, values: tuple[float | int, ...], size: tuple[int, int], resized: tuple[int, int] | None = None
    ) -> Box:
        """Compute the box of four numbers; see [`~datasets_script.vlm.conventions.decode_box`]."""
        if len(values) != 4 or not all(math.isfinite(value) for value in values):
            raise ValueError(f"`values` must be four finite numbers, got {values}")
        horizontal, vertical = self._checked_axes(size, resized)
        unit = 10**self.decimals
        x_min, x_max = horizontal.decode(values[0] * unit, values[2] * unit)
        y_min, y_max = vertical.decode(values[1] * unit, values[3] * unit)
        return x_min, y_min, x_max, y_max

    def format(self, box: Box, size: tuple[int, int], resized: tuple[int, int] | None = None) -> str:
        """Write a box as text; see [`~datasets_script.vlm.conventions.format_box`]."""
        return self.write_box(", ".join(f"{value:.{self.decimals}f}" for value in self.encode(box, size, resized)))

    def _checked_axes(self, size: tuple[int, int], resized: tuple[int, int] | None) -> tuple[Axis, Axis]:
        if resized is not None and not self.counts_resized:
            raise ValueError(
                f"`resized` must be None for the convention '{self.name}', whose boxes do not depend on it, "
                f"got {resized}"
            )
        return self.axes(size, resized)


def _check_order(low: float, high: float) -> None:
    if low > high:
        raise ValueError(f"the maxima of a box must be at least its minima, got {high} below {low}")
