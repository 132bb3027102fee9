"""What boxes that a person draws, and keys that a person presses, make of the mask of a region."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from diffusers_artifact.tools import bbox_of_mask

from ..schema.boxes import Box
from ..utils.errors import UserError


def within(box: Box, size: tuple[int, int]) -> Box:
    """
    Return a box with its corners in order and in the image, at whole pixels.

    Args:
        box (`tuple[float, float, float, float]`): Two corners, px.
        size (`tuple[int, int]`): `(width, height)` of the image.

    Raises:
        UserError: Nothing of it lies in the image.
    """
    x_min, x_max = sorted(min(max(round(x), 0), size[0]) for x in (box[0], box[2]))
    y_min, y_max = sorted(min(max(round(y), 0), size[1]) for y in (box[1], box[3]))
    if x_min == x_max or y_min == y_max:
        raise UserError(f"a box must cover a pixel of the image of {size[0]} × {size[1]} pixels, got {list(box)}")
    return float(x_min), float(y_min), float(x_max), float(y_max)


def filled(box: Box, size: tuple[int, int]) -> np.ndarray:
    """Return the mask of a box of whole pixels, of shape `(height, width)`, `bool`."""
    mask = np.zeros(size[::-1], dtype=bool)
    x_min, y_min, x_max, y_max = map(int, box)
    mask[y_min:y_max, x_min:x_max] = True
    return mask


def boxed(mask: np.ndarray, box: Box) -> np.ndarray:
    """
    Bring a mask to a box that was drawn for it: a box within the mask's own cuts the mask, one that reaches beyond is
    the mask.

    Args:
        mask (`np.ndarray` of shape `(height, width)`, `bool`): The mask, at least one pixel.
        box (`tuple[float, float, float, float]`): The new box, whole pixels.

    Returns:
        `np.ndarray` of shape `(height, width)`, `bool`.
    """
    area, own = filled(box, mask.shape[::-1]), bbox_of_mask(mask)
    inside = all(new >= old for new, old in zip(box[:2], own[:2], strict=True)) and all(
        new <= old for new, old in zip(box[2:], own[2:], strict=True)
    )
    cut = mask & area
    return cut if inside and cut.any() else area


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """
    Grow a mask by some pixels to all sides, or shrink it by a negative number.

    Args:
        mask (`np.ndarray` of shape `(height, width)`, `bool`): The mask.
        pixels (`int`): How far.

    Returns:
        `np.ndarray` of shape `(height, width)`, `bool`; the border of the image does not shrink it.
    """
    if not pixels:
        return mask
    shape = ImageFilter.MaxFilter if pixels > 0 else ImageFilter.MinFilter
    image = Image.fromarray(mask.astype(np.uint8) * 255).filter(shape(2 * abs(pixels) + 1))
    return np.asarray(image) > 127
