"""Masks of polygons with their outlines, as two published protocols draw them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from .regions import Region, Size, region_mask


def outlined_mask(regions: Sequence[Region], size: Size, moves_points: bool = True) -> np.ndarray:
    """
    Draw true regions with their outlines, as the released code of X-AIGD and that of LEGION do: coordinates of
    polygons are cut to whole numbers, and polygons are filled with their outline. Other parts of a region are drawn as
    by [`region_mask`].

    Args:
        regions (`Sequence[Region]`): Parts of a region.
        size (`tuple[int, int]`): Width and height of the image in pixels.
        moves_points (`bool`, *optional*, defaults to `True`): Move points that lie outside the image to its border
            first, as X-AIGD does. LEGION cuts the polygon off at the border instead.

    Returns:
        `np.ndarray` of shape `(height, width)`, `bool`.

    Example:

    ```python
    >>> outlined_mask([(0.9, 0.9, 2.9, 0.9, 2.9, 7.0, 0.9, 7.0)], (4, 3)).astype(int)
    array([[1, 1, 1, 0],
           [1, 1, 1, 0],
           [1, 1, 1, 0]])

    ```
    """
    width, height = size
    canvas = Image.new("1", (width, height))
    draw = ImageDraw.Draw(canvas)
    others = []
    for region in regions:
        if isinstance(region, Sequence) and not isinstance(region, bytes | str) and len(region) >= 6:
            # Cut in floats, since coordinates may lie beyond whole numbers of 32 bits.
            points = np.trunc(np.asarray(region, dtype=np.float64).reshape(-1, 2))
            if moves_points:
                points = np.clip(points, 0, (width - 1, height - 1))
            draw.polygon([(int(x), int(y)) for x, y in points], fill=1, outline=1)
        else:
            others.append(region)
    mask = np.array(canvas, dtype=bool)
    return mask | region_mask(others, size) if others else mask
