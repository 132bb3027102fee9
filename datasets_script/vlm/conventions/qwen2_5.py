"""Qwen2.5-VL: pixels of the image as its processor resizes it."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

from .base import JSON_QUESTION, Axis, BoxConvention


# As in the `preprocessor_config.json` of the published Qwen2.5-VL models.
QWEN2_5_MIN_PIXELS = 56 * 56
QWEN2_5_MAX_PIXELS = 28 * 28 * 16384


class Qwen2_5(BoxConvention):
    """Whole pixels of the image as the processor resizes it, see [`qwen2_5_size`] (QwenLM/Qwen3-VL#940)."""

    name = "qwen2.5"
    meaning = "pixels of the image as Qwen2.5-VL's processor resizes it"
    question = f"{JSON_QUESTION}in absolute pixels of the image."
    families = ("qwen25vl",)
    counts_resized = True

    def resized(self, size: tuple[int, int], min_pixels: int, max_pixels: int) -> tuple[int, int]:
        return qwen2_5_size(size, min_pixels, max_pixels)

    def axes(self, size: tuple[int, int], resized: tuple[int, int] | None) -> tuple[Axis, Axis]:
        width, height = resized or qwen2_5_size(size)
        return Axis(size[0], 0, size[0], width), Axis(size[1], 0, size[1], height)


def qwen2_5_size(
    size: tuple[int, int],
    min_pixels: int = QWEN2_5_MIN_PIXELS,
    max_pixels: int = QWEN2_5_MAX_PIXELS,
    factor: int = 28,
) -> tuple[int, int]:
    """
    Compute width and height to which the processor of Qwen2-VL and Qwen2.5-VL resizes an image: multiples of `factor`
    in about the same aspect ratio, with `min_pixels` to `max_pixels` pixels.

    Args:
        size (`tuple[int, int]`): Width and height of the stored image.
        min_pixels, max_pixels (`int`, *optional*): Bounds of the processor; by default those of the published models.
        factor (`int`, *optional*, defaults to 28): Side of a token in pixels: patches of 14 px, merged 2 x 2.

    Returns:
        `tuple[int, int]`: Width and height in pixels.

    Raises:
        ValueError: One side is more than 200 times the other, which the processor refuses.
    """
    width, height = size
    if max(size) > 200 * min(size):
        raise ValueError(f"`size` must have sides of a ratio of at most 200, got {size}")
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
    Return the least and the greatest number of pixels of an image that a model sees.

    Args:
        image_processor (`BaseImageProcessor`, *optional*): Processor of Qwen2-VL, Qwen2.5-VL or Qwen3-VL. For other
            families, and for `None`, the bounds are those of the published Qwen2.5-VL models.
    """
    if hasattr(image_processor, "merge_size"):
        # For these families transformers stores numbers of pixels under the names of edges.
        with suppress(KeyError):
            least, most = image_processor.size["shortest_edge"], image_processor.size["longest_edge"]
            if least and most:
                return int(least), int(most)
    return QWEN2_5_MIN_PIXELS, QWEN2_5_MAX_PIXELS
