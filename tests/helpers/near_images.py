"""Comparison of images whose last bits may depend on the batch that they were made in."""

from __future__ import annotations

import numpy as np
from PIL import Image


def nearly_equal(first: np.ndarray | Image.Image, second: np.ndarray | Image.Image) -> bool:
    """Return whether no value differs by more than 1, as it may on some CPUs between batches of different sizes."""
    return bool((np.abs(np.asarray(first).astype(int) - np.asarray(second)) <= 1).all())
