"""The answer that fits masks best without a look at their images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datasets_script.pairs.report.statistics import best_constant_box
from diffusers_artifact.tools.geometry import bbox_of_mask


def best_box(masks: Sequence[np.ndarray]) -> list[float]:
    """
    Return the box with the greatest mean IoU with the bounding boxes of masks.

    Args:
        masks (`Sequence[np.ndarray]` of shape `(height, width)`, `bool`): A mask of each image, all of one size.

    Returns:
        `list[float]`: `(x_min, y_min, x_max, y_max)` in pixels.
    """
    height, width = masks[0].shape
    sides = (width, height, width, height)
    shares = [tuple(edge / side for edge, side in zip(bbox_of_mask(mask), sides, strict=True)) for mask in masks]
    return [share * side for share, side in zip(best_constant_box([[box] for box in shares]).box, sides, strict=True)]
