"""
Boxes as vision-language models write them, and back.

| convention | values of a box | source |
|---|---|---|
| `pixel` | whole pixels of the stored image | ours |
| `normalized` | fractions of width and height, 3 decimals | ours |
| `qwen2.5` | whole pixels of the image as the processor resizes it ([`qwen2_5_size`]) | QwenLM/Qwen3-VL#940 |
| `qwen3` | thousandths of width and height, 0 to 1000 | QwenLM/Qwen3-VL#1741, its cookbook on 2D grounding |
| `internvl` | thousandths of width and height, as `<box>[[x, y, x, y]]</box>` | InternVL documentation |
| `llava` | fractions of the image padded to a square around its middle, 2 decimals | haotian-liu/LLaVA#606 |

Values go to the nearest step, halves upwards. A box thinner than a step, which would become empty, is widened to the
steps around it. Fractions of a padded square do not depend on how far the square is then shrunk (336 px for LLaVA-1.5
and SynArtifact), as long as it is padded and not cropped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, get_args


Box = tuple[float, float, float, float]
Convention = Literal["pixel", "normalized", "qwen2.5", "qwen3", "internvl", "llava"]
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)
MEANINGS: Mapping[Convention, str] = {
    "pixel": "pixels of the image as it is stored",
    "normalized": "fractions of width and height",
    "qwen2.5": "pixels of the image as Qwen2.5-VL's processor resizes it",
    "qwen3": "thousandths of width and height",
    "internvl": "thousandths of width and height, within <box> tags",
    "llava": "fractions of the image padded to a square",
}
# As in the `preprocessor_config.json` of the published Qwen2.5-VL models.
QWEN2_5_MIN_PIXELS = 56 * 56
QWEN2_5_MAX_PIXELS = 28 * 28 * 16384
_DECIMALS: dict[str, int] = {"normalized": 3, "llava": 2}
# In names of models and of their architectures, without what is no letter or digit.
_FAMILIES: Mapping[str, Convention] = {
    "qwen25vl": "qwen2.5",
    "qwen3vl": "qwen3",
    "internvl": "internvl",
    "llava": "llava",
}


def convention_for(*names: str) -> Convention:
    """
    How a model's family is trained to write boxes.

    Args:
        names (`str`): What tells the family: a `model_type` of transformers, an id on the Hub. The first that does
            counts.

    Returns:
        `str`: One of `CONVENTIONS`; `"normalized"` where no name tells.

    Example:

    ```python
    >>> convention_for("OpenGVLab/InternVL3_5-8B-HF"), convention_for("idefics3", "mine")
    ('internvl', 'normalized')

    ```
    """
    for name in names:
        plain = re.sub(r"[^a-z0-9]", "", name.lower())
        for family, convention in _FAMILIES.items():
            if family in plain:
                return convention
    return "normalized"


def encode_box(
    box: Box, size: tuple[int, int], convention: Convention, resized: tuple[int, int] | None = None
) -> tuple[float | int, ...]:
    """
    The four numbers a model reads or writes for a box.

    Args:
        box (`tuple[float, float, float, float]`): `(x_min, y_min, x_max, y_max)`, exclusive maxima, in pixels of the
            stored image; what lies outside of the image is cut off.
        size (`tuple[int, int]`): Width and height of the stored image.
        convention (`str`): One of `CONVENTIONS`.
        resized (`tuple[int, int]`, *optional*): Width and height of the image as the processor resizes it; for
            `"qwen2.5"` only, where the default is `qwen2_5_size(size)`.

    Returns:
        `tuple[float | int, ...]`: Whole numbers (`int`), or fractions for `"normalized"` and `"llava"`.

    Raises:
        ValueError: the convention is unknown, or the maxima of the box are below its minima.

    Examples:

    ```python
    >>> encode_box((64, 48, 320, 240), (640, 480), "qwen3")
    (100, 100, 500, 500)
    >>> encode_box((64, 48, 320, 240), (640, 480), "llava")
    (0.1, 0.2, 0.5, 0.5)

    ```
    """
    axes = _axes(size, convention, resized)
    decimals = _DECIMALS.get(convention, 0)
    low_x, high_x = axes[0].encode(box[0], box[2])
    low_y, high_y = axes[1].encode(box[1], box[3])
    steps = (low_x, low_y, high_x, high_y)
    return tuple(round(step / 10**decimals, decimals) for step in steps) if decimals else steps


def decode_box(
    values: tuple[float | int, ...],
    size: tuple[int, int],
    convention: Convention,
    resized: tuple[int, int] | None = None,
) -> Box:
    """
    The box that four numbers stand for; the inverse of [`encode_box`].

    Args:
        values (`tuple[float | int, ...]`): Four numbers in the order of a box.
        size, convention, resized: See [`encode_box`].

    Returns:
        `tuple[float, float, float, float]`: `(x_min, y_min, x_max, y_max)` in pixels of the stored image, cut off at
            its borders. It is empty if the values are.

    Raises:
        ValueError: the convention is unknown, `values` are not four finite numbers, or the maxima are below the
            minima.
    """
    if len(values) != 4 or not all(math.isfinite(value) for value in values):
        raise ValueError(f"`values` has to be four finite numbers, but is {values}.")
    horizontal, vertical = _axes(size, convention, resized)
    unit = 10 ** _DECIMALS.get(convention, 0)
    x_min, x_max = horizontal.decode(values[0] * unit, values[2] * unit)
    y_min, y_max = vertical.decode(values[1] * unit, values[3] * unit)
    return x_min, y_min, x_max, y_max


def format_box(box: Box, size: tuple[int, int], convention: Convention, resized: tuple[int, int] | None = None) -> str:
    """
    A box as text: `[x_min, y_min, x_max, y_max]`, for InternVL within its tags. Arguments as of [`encode_box`].

    ```python
    >>> format_box((64, 48, 320, 240), (640, 480), "normalized")
    '[0.100, 0.100, 0.500, 0.500]'
    >>> format_box((64, 48, 320, 240), (640, 480), "internvl")
    '<box>[[100, 100, 500, 500]]</box>'

    ```
    """
    decimals = _DECIMALS.get(convention, 0)
    text = ", ".join(f"{value:.{decimals}f}" for value in encode_box(box, size, convention, resized))
    return f"<box>[[{text}]]</box>" if convention == "internvl" else f"[{text}]"


def qwen2_5_size(
    size: tuple[int, int],
    min_pixels: int = QWEN2_5_MIN_PIXELS,
    max_pixels: int = QWEN2_5_MAX_PIXELS,
    factor: int = 28,
) -> tuple[int, int]:
    """
    Width and height to which the processor of Qwen2-VL and Qwen2.5-VL resizes an image: multiples of `factor`, of
    about the same shape, with `min_pixels` to `max_pixels` pixels.

    Args:
        size (`tuple[int, int]`): Width and height of the stored image.
        min_pixels, max_pixels (`int`): As the processor is set; the defaults are those of the published models.
        factor (`int`, *optional*, defaults to 28): Side of a token: a patch of 14 px, merged 2 x 2.

    Raises:
        ValueError: one side is more than 200 times the other, which the processor refuses.
    """
    width, height = size
    if max(size) > 200 * min(size):
        raise ValueError(f"`size` has to have sides of a ratio of at most 200, but is {size}.")
    resized = (round(width / factor) * factor, round(height / factor) * factor)
    if math.prod(resized) > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        return (
            max(factor, math.floor(width / shrink / factor) * factor),
            max(factor, math.floor(height / shrink / factor) * factor),
        )
    if math.prod(resized) < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        return math.ceil(width * grow / factor) * factor, math.ceil(height * grow / factor) * factor
    return resized


def pixel_bounds(image_processor: Any) -> tuple[int, int]:
    """
    Least and most pixels of an image that a model gets.

    Args:
        image_processor (`BaseImageProcessor`, *optional*): Of Qwen2-VL, Qwen2.5-VL or Qwen3-VL. For those of other
            families, and for `None`, the bounds are those of the published Qwen2.5-VL models.
    """
    if hasattr(image_processor, "merge_size"):
        # transformers keeps the numbers of pixels of these families under the names of edges.
        with suppress(KeyError):
            least, most = image_processor.size["shortest_edge"], image_processor.size["longest_edge"]
            if least and most:
                return int(least), int(most)
    return QWEN2_5_MIN_PIXELS, QWEN2_5_MAX_PIXELS


@dataclass(frozen=True)
class _Axis:
    """One axis of an image of `length` px that begins `offset` px into `extent` px, which are divided in `steps`."""

    length: int
    offset: int
    extent: int
    steps: int

    def encode(self, low: float, high: float) -> tuple[int, int]:
        if low > high:
            raise ValueError(f"The maxima of a box have to be at least its minima, but {low} > {high}.")
        # Rounded, so that what decodes from a whole step is a whole step again.
        exact = [round((self._inside(edge) + self.offset) * self.steps / self.extent, 6) for edge in (low, high)]
        near_low, near_high = (math.floor(step + 0.5) for step in exact)
        if near_low == near_high:
            return math.floor(exact[0]), math.ceil(exact[1])
        return near_low, near_high

    def decode(self, low: float, high: float) -> tuple[float, float]:
        if low > high:
            raise ValueError(f"The maxima of a box have to be at least its minima, but {low} > {high}.")
        return self._position(low), self._position(high)

    def _position(self, step: float) -> float:
        return self._inside(step * self.extent / self.steps - self.offset)

    def _inside(self, edge: float) -> float:
        return min(max(edge, 0.0), float(self.length))


def _axes(size: tuple[int, int], convention: Convention, resized: tuple[int, int] | None) -> tuple[_Axis, _Axis]:
    if convention not in CONVENTIONS:
        raise ValueError(f"`convention` has to be one of {', '.join(CONVENTIONS)}, but is {convention!r}.")
    if resized is not None and convention != "qwen2.5":
        raise ValueError(f"`resized` is for the convention 'qwen2.5' only, but {convention!r} came with {resized}.")
    if convention == "llava":
        side = max(size)
        return _Axis(size[0], (side - size[0]) // 2, side, 100), _Axis(size[1], (side - size[1]) // 2, side, 100)
    if convention == "pixel":
        steps = size
    elif convention == "qwen2.5":
        steps = resized or qwen2_5_size(size)
    else:
        steps = (1000, 1000)
    return _Axis(size[0], 0, size[0], steps[0]), _Axis(size[1], 0, size[1], steps[1])
