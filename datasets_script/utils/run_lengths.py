"""Masks in COCO's run-length encoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocotools import mask as rle


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """
    Encode a mask.

    Args:
        mask (`np.ndarray` of shape `(height, width)`, `bool`): The mask.

    Returns:
        `dict`: `size`, which is `[height, width]`, and `counts`, a string.
    """
    encoded = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def decode_mask(encoded: Mapping[str, Any]) -> np.ndarray:
    """Decode what [`encode_mask`] returned to a mask of shape `(height, width)`, `bool`."""
    return rle.decode({"size": list(encoded["size"]), "counts": encoded["counts"].encode("ascii")}).astype(bool)
