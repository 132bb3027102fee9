"""Masks from COCO segmentations and keypoints."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from evaluate_metrics.functional.regions import rle_mask


# Polygons are cut this many image sides outside the image. Further out they add no pixels, but pycocotools takes
# memory for every pixel of their outline and crashes where coordinates exceed its integers.
_MARGIN = 10

# Longest outline of one polygon, in pixels: 400 sides of an image of 10,000. pycocotools takes some 50 bytes a pixel.
_MAX_OUTLINE = 4_000_000


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
    with np.errstate(over="ignore"):  # a centre too far away to be squared
        return (columns + 0.5 - centre[0]) ** 2 + (rows + 0.5 - centre[1]) ** 2 <= radius**2


def decode_segmentation(segmentation: Any, shape: tuple[int, int]) -> np.ndarray:
    """
    Decode a COCO `segmentation` to a mask.

    Args:
        segmentation (`list[list[float]]` or `dict`): Polygons `[[x, y, x, y, …], …]`, whose union is taken, or
            run-length encoding `{"size": [height, width], "counts": …}` with the counts as a list (uncompressed) or a
            string (compressed). What lies outside the image is cut off.
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
    clipped = [polygon for polygon in (_clipped(polygon, shape) for polygon in segmentation) if polygon]
    if not clipped:
        return np.zeros(shape, dtype=bool)
    union = coco_mask.merge(coco_mask.frPyObjects(clipped, *shape))
    return _decode_rle({"size": list(shape), "counts": union["counts"].decode("ascii")}, shape)


def without_faint_polygons(segmentation: Any) -> tuple[Any, list[str]]:
    """
    Leave out polygons with fewer than three corners, which some tools write beside others of the same region.

    Args:
        segmentation (`Any`): As read from JSON.

    Returns:
        `tuple`: The segmentation, as it is if nothing would be left of it, and what is wrong with each polygon that
        was left out.
    """
    if not isinstance(segmentation, list) or not all(isinstance(polygon, list) for polygon in segmentation):
        return segmentation, []
    drawable = [polygon for polygon in segmentation if len(polygon) not in (0, 2, 4)]
    if not drawable:
        return segmentation, []
    return drawable, [_too_few_corners(polygon) for polygon in segmentation if len(polygon) in (0, 2, 4)]


def shorten(value: Any, length: int = 60) -> str:
    """Return a value as an error message quotes it."""
    text = repr(value)
    return text if len(text) <= length else text[: length - 1] + "…"


def is_number(value: Any) -> bool:
    """Return whether a value read from JSON is a finite number (`true` and `NaN` are not)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the range of floats
        return False


def _check_polygon(polygon: Any) -> None:
    if not isinstance(polygon, list) or not all(is_number(value) for value in polygon):
        raise ValueError(f"a polygon must be a list of numbers [x, y, x, y, …], got {shorten(polygon)}")
    # pycocotools reads four numbers as a box, so a polygon of two corners must not reach it.
    if len(polygon) < 6 or len(polygon) % 2:
        raise ValueError(_too_few_corners(polygon))


def _too_few_corners(polygon: list[float]) -> str:
    return f"a polygon must have 3 corners or more, two numbers each, got {len(polygon)}: {shorten(polygon)}"


def _clipped(polygon: list[float], shape: tuple[int, int]) -> list[float]:
    """
    Cut off what lies far outside the image (Sutherland and Hodgman's algorithm); empty if nothing is left. A polygon
    that does not reach so far is returned as it is.
    """
    reach = _MARGIN * max(shape)
    corners = list(zip(map(float, polygon[::2]), map(float, polygon[1::2]), strict=True))
    bounds = [(axis, side) for axis in (0, 1) for side in (-1, 1)]
    limits = {(axis, side): reach if side < 0 else reach + shape[1 - axis] for axis, side in bounds}
    if any(side * corner[axis] > limits[axis, side] for axis, side in bounds for corner in corners):
        for axis, side in bounds:
            corners = _cut(corners, axis, side, limits[axis, side])
        polygon = [coordinate for corner in corners for coordinate in corner]
    outline = sum(math.dist(a, b) for a, b in zip(corners, [*corners[1:], *corners[:1]], strict=True))
    if outline > _MAX_OUTLINE:
        raise ValueError(f"the outline of a polygon must be at most {_MAX_OUTLINE} pixels long, got {outline:.0f}")
    return polygon if len(corners) >= 3 else []


def _cut(corners: list[tuple[float, float]], axis: int, side: int, limit: float) -> list[tuple[float, float]]:
    """Keep the part of a polygon where `side` times the coordinate `axis` is at most `limit`."""
    kept: list[tuple[float, float]] = []
    for start, end in zip([*corners[-1:], *corners[:-1]], corners, strict=True):
        a, b = side * start[axis], side * end[axis]
        if (a > limit) != (b > limit):
            # From the end that is kept, which is near the image, so that digits are not lost to a distant one; in
            # halves because the difference of two floats may overflow.
            inner, outer = (end, start) if b <= limit else (start, end)
            share = (limit / 2 - min(a, b) / 2) / (max(a, b) / 2 - min(a, b) / 2)
            crossing = [inner[other] - share * inner[other] + share * outer[other] for other in (0, 1)]
            crossing[axis] = side * limit
            kept.append((crossing[0], crossing[1]))
        if b <= limit:
            kept.append(end)
    return kept


def _decode_rle(rle: dict[str, Any], shape: tuple[int, int]) -> np.ndarray:
    if rle.get("size") != list(shape):
        raise ValueError(f"RLE `size` must be [height, width], {list(shape)}, got {shorten(rle.get('size'))}")
    counts = rle.get("counts")
    area = shape[0] * shape[1]
    is_runs = isinstance(counts, list) and all(isinstance(count, int) and 0 <= count <= area for count in counts)
    if not is_runs and not isinstance(counts, str):
        raise ValueError(
            f"RLE `counts` must be a compressed string or whole numbers from 0 to {area}, got {shorten(counts)}"
        )
    return np.ascontiguousarray(rle_mask(rle))
