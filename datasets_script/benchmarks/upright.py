"""Benchmark images with an EXIF turn: turned once, with their regions, into the frame that `datasets` decodes."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import ExifTags, Image, ImageOps

from ..schema.image import BenchmarkImage, Region


# By EXIF orientation: how pixels move, and where a point goes in an image of a width and height before the turn.
_Turn = tuple[Callable[[np.ndarray], np.ndarray], Callable[[float, float, int, int], tuple[float, float]]]
_TURNS: dict[int, _Turn] = {
    2: (lambda a: a[:, ::-1], lambda x, y, w, h: (w - x, y)),
    3: (lambda a: a[::-1, ::-1], lambda x, y, w, h: (w - x, h - y)),
    4: (lambda a: a[::-1], lambda x, y, w, h: (x, h - y)),
    5: (lambda a: a.T, lambda x, y, w, h: (y, x)),
    6: (lambda a: np.rot90(a, -1), lambda x, y, w, h: (h - y, x)),
    7: (lambda a: a[::-1, ::-1].T, lambda x, y, w, h: (h - y, w - x)),
    8: (lambda a: np.rot90(a), lambda x, y, w, h: (y, w - x)),
}


def upright(image: BenchmarkImage) -> BenchmarkImage:
    """
    Turn an image as its EXIF orientation says, with its regions, which refer to the pixels as they are stored.

    Args:
        image (`BenchmarkImage`): The image as published.

    Returns:
        `BenchmarkImage`: The same object if there is nothing to turn; else the turned image as PNG, with the number of
        the orientation as `exif_orientation` in its metadata.
    """
    with Image.open(io.BytesIO(image.image)) as opened:
        orientation = opened.getexif().get(ExifTags.Base.Orientation, 1)
        if orientation not in _TURNS:
            return image
        turned = ImageOps.exif_transpose(opened)
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(turned)).save(buffer, format="PNG")
    return replace(
        image,
        image=buffer.getvalue(),
        size=turned.size,
        regions=tuple(_turned(region, _TURNS[orientation], image.size) for region in image.regions),
        metadata=image.metadata | {"exif_orientation": orientation},
    )


def _turned(region: Region, turn: _Turn, size: tuple[int, int]) -> Region:
    pixels, point = turn
    bbox = region.bbox
    if bbox is not None:
        (x_1, y_1), (x_2, y_2) = point(bbox[0], bbox[1], *size), point(bbox[2], bbox[3], *size)
        bbox = (min(x_1, x_2), min(y_1, y_2), max(x_1, x_2), max(y_1, y_2))
    polygons = tuple(
        tuple(number for x, y in zip(polygon[::2], polygon[1::2], strict=True) for number in point(x, y, *size))
        for polygon in region.polygons
    )
    mask = None if region.mask is None else np.ascontiguousarray(pixels(region.mask))
    return replace(region, bbox=bbox, polygons=polygons, mask=mask)
