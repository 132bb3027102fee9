"""
Conventions by which vision-language models write boxes, and the conversion of boxes to them and back.

| convention | values of a box |
|---|---|
| `pixel` | whole pixels of the stored image |
| `normalized` | fractions of width and height, 3 decimals |
| `qwen2.5` | whole pixels of the image as the processor resizes it ([`qwen2_5_size`]) |
| `qwen3` | thousandths of width and height, 0 to 1000 |
| `internvl` | thousandths of width and height, as `<box>[[x, y, x, y]]</box>` |
| `llava` | fractions of the image padded to a square around its middle, 2 decimals |

Values are rounded to the nearest step, halves upwards. A box thinner than a step, which would become empty, is widened
to the steps around it. Each family's file defines its convention; [`BoxFormat`] sets one up for a model.
"""

from __future__ import annotations

from ...schema.boxes import Box
from .base import BoxConvention
from .box_format import BoxFormat
from .qwen2_5 import QWEN2_5_MAX_PIXELS, QWEN2_5_MIN_PIXELS, pixel_bounds, qwen2_5_size
from .registry import CONVENTIONS, convention_for, find_convention


__all__ = [
    "CONVENTIONS",
    "QWEN2_5_MAX_PIXELS",
    "QWEN2_5_MIN_PIXELS",
    "BoxConvention",
    "BoxFormat",
    "convention_for",
    "decode_box",
    "encode_box",
    "find_convention",
    "format_box",
    "pixel_bounds",
    "qwen2_5_size",
]


def encode_box(
    box: Box, size: tuple[int, int], convention: str, resized: tuple[int, int] | None = None
) -> tuple[float | int, ...]:
    """
    Compute the four numbers a model reads or writes for a box.

    Args:
        box (`tuple[float, float, float, float]`): `(x_min, y_min, x_max, y_max)`, exclusive maxima, in pixels of the
            stored image; clipped to the image.
        size (`tuple[int, int]`): Width and height of the stored image.
        convention (`str`): One of `CONVENTIONS`.
        resized (`tuple[int, int]`, *optional*): Width and height of the image after the processor has resized it; for
            `"qwen2.5"` only, defaults to `qwen2_5_size(size)`.

    Returns:
        `tuple[float | int, ...]`: Whole numbers (`int`), or fractions for `"normalized"` and `"llava"`.

    Raises:
        ValueError: The convention is unknown, or the maxima of the box are below its minima.

    Examples:

    ```python
    >>> encode_box((64, 48, 320, 240), (640, 480), "qwen3")
    (100, 100, 500, 500)
    >>> encode_box((64, 48, 320, 240), (640, 480), "llava")
    (0.1, 0.2, 0.5, 0.5)

    ```

    """
    return find_convention(convention).encode(box, size, resized)


def decode_box(
    values: tuple[float | int, ...], size: tuple[int, int], convention: str, resized: tuple[int, int] | None = None
) -> Box:
    """
    Compute the box that four numbers stand for; the inverse of [`encode_box`].

    Args:
        values (`tuple[float | int, ...]`): Four numbers in the order of a box.
        size, convention, resized: See [`encode_box`].

    Returns:
        `tuple[float, float, float, float]`: `(x_min, y_min, x_max, y_max)` in pixels of the stored image, clipped to
        it. Empty if the values are.

    Raises:
        ValueError: The convention is unknown, `values` are not four finite numbers, or the maxima are below the
            minima.
    """
    return find_convention(convention).decode(values, size, resized)


def format_box(box: Box, size: tuple[int, int], convention: str, resized: tuple[int, int] | None = None) -> str:
    """
    Write a box as text: `[x_min, y_min, x_max, y_max]`, for InternVL within its tags.

    Args:
        box, size, convention, resized: See [`encode_box`].

    Returns:
        `str`: The text as the model writes it.

    Raises:
        ValueError: See [`encode_box`].

    Examples:

    ```python
    >>> format_box((64, 48, 320, 240), (640, 480), "normalized")
    '[0.100, 0.100, 0.500, 0.500]'
    >>> format_box((64, 48, 320, 240), (640, 480), "internvl")
    '<box>[[100, 100, 500, 500]]</box>'

    ```

    """
    return find_convention(convention).format(box, size, resized)
