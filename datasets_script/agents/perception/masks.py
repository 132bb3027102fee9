"""Masks from COCO segmentations and keypoints."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from evaluate_metrics.functional.regions import rle_mask


def disc(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    """
    Draw a filled disc.

    Args:
        shape (`tuple[int, int]`): `(height, width)` of the mask.
        centre (`tuple[float, float]`): `(x, y)` in pixels; the first pixel spans 0 to 1.
        radius (`float`): In pixels.

    Returns:
        `np.ndarray` of shape `(height, width)`, `bool`.
    """
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (columns + 0.5 - centre[0]) ** 2 + (rows + 0.5 - centre[1]) ** 2 <= radius**2


def decode_segmentation(segmentation: Any, shape: tuple[int, int]) -> np.ndarray:
    """
    Decode a COCO `segmentation` to a mask.

    Args:
        segmentation (`list[list[float]]` or `dict`): Polygons `[[x, y, x, y, …], …]`, whose union is taken, or
            run-length encoding `{"size": [height, width], "counts": …}` with the counts as a list (uncompressed) or a
            string (compressed).
        shape (`tuple[int, int]`): `(height, width)` of the image.

    Returns:
        `np.ndarray` of shape `(height, width)`, `bool`.

    Raises:
        ValueError: `segmentation` is anything else; the message says what was expected and what came.
    """
    if isinstance(segmentation, dict):
        return _decode_rle(segmentation, shape)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError(f"`segmentation` must be a list of polygons or an RLE object, got {shorten(segmentation)}")
    for polygon in segmentation:
        _check_polygon(polygon)
    union = coco_mask.merge(coco_mask.frPyObjects(segmentation, *shape))
    return _decode_rle({"size": list(shape), "counts": union["counts"].decode("ascii")}, shape)


def shorten(value: Any, length: int = 60) -> str:
    """Return a value as an error message quotes it."""
    text = repr(value)
    return text if len(text) <= length else text[: length - 1] + "…"


def is_number(value: Any) -> bool:
    """Return whether a value read from JSON is a finite number (`true` and `NaN` are not)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))


def _check_polygon(polygon: Any) -> None:
    if not isinstance(polygon, list) or not all(is_number(value) for value in polygon):
        raise ValueError(f"a polygon must be a list of numbers [x, y, x, y, …], got {shorten(polygon)}")
    # pycocotools reads four numbers as a box, so a polygon of two corners must not reach it.
    if len(polygon) < 6 or len(polygon) % 2:
        raise ValueError(
            f"a polygon must have 3 corners or more, two numbers each, got {len(polygon)}: {shorten(polygon)}"
        )


def _decode_rle(rle: dict[str, Any], shape: tuple[int, int]) -> np.ndarray:
    if rle.get("size") != list(shape):
        raise ValueError(f"RLE `size` must be [height, width], {list(shape)}, got {shorten(rle.get('size'))}")
    counts = rle.get("counts")
    is_runs = isinstance(counts, list) and all(isinstance(count, int) and count >= 0 for count in counts)
    if not is_runs and not isinstance(counts, str):
        raise ValueError(f"RLE `counts` must be a compressed string or whole numbers from 0, got {shorten(counts)}")
    return np.ascontiguousarray(rle_mask(rle))
