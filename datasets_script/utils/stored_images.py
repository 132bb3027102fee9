"""Images as dataset rows store them."""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image


def stored_png(pixels: np.ndarray) -> dict[str, Any]:
    """
    Encode an image as `datasets.Image` stores it, without metadata, so that equal pixels give equal bytes.

    Args:
        pixels (`np.ndarray` of shape `(height, width)` or `(height, width, 3)`): `uint8`, or `uint16` for grey.

    Returns:
        `dict`: `bytes`, a PNG file, and `path`, which is `None`.
    """
    buffer = io.BytesIO()
    # Run-length matching is faster than zlib's default strategy, and photos do not get larger.
    Image.fromarray(pixels).save(buffer, format="PNG", compress_type=zlib.Z_RLE)
    return {"bytes": buffer.getvalue(), "path": None}


def stored_mask(mask: np.ndarray) -> dict[str, Any]:
    """Encode a `bool` mask of shape `(height, width)` as an image of 0 and 255; see [`stored_png`]."""
    return stored_png(mask.astype(np.uint8) * 255)


def stored_map(values: np.ndarray) -> dict[str, Any]:
    """
    Encode a map of values in [0, 1], of shape `(height, width)`, as an image of 16 bits, 0 to 65535; see
    [`stored_png`].
    """
    return stored_png(np.round(values.astype(np.float64) * 65535).astype(np.uint16))


def stored_pixels(stored: Mapping[str, Any]) -> np.ndarray:
    """Decode a stored image to its pixels, as they are: those of a mask are 0 and 255."""
    with Image.open(io.BytesIO(stored["bytes"])) as image:
        return np.asarray(image)


def stored_size(stored: Mapping[str, Any]) -> tuple[int, int]:
    """Read the width and height of a stored image, px, from its header."""
    with Image.open(io.BytesIO(stored["bytes"])) as image:
        return image.size
