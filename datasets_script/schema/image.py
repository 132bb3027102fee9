"""Images of a benchmark, their columns, and the conversion to rows and back."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any, Literal

import datasets
import numpy as np
from datasets import Features, List, Value
from PIL import Image

from ..utils.stored_images import stored_map, stored_mask


RegionShape = Literal["box", "polygon", "mask", "heat_map"]


# `metadata` is JSON in a string, as in `PAIR_FEATURES`. `has_artifact` is null if the benchmark does not say.
BENCHMARK_FEATURES = Features(
    {
        "id": Value("string"),
        "image": datasets.Image(mode="RGB"),
        "width": Value("int32"),
        "height": Value("int32"),
        "has_artifact": Value("bool"),
        "regions": List(
            {
                "shape": Value("string"),
                "bbox": List(Value("float64"), length=4),
                "polygons": List(List(Value("float64"))),
                "mask": datasets.Image(),
                "class": Value("string"),
                "caption": Value("string"),
            }
        ),
        "caption": Value("string"),
        "explanation": Value("string"),
        "metadata": Value("string"),
    }
)


@dataclass(frozen=True, eq=False)
class Region:
    """
    A region of an image where an artifact is.

    Attributes:
        shape (`str`): `"box"`, `"polygon"`, `"mask"` or `"heat_map"`, as the benchmark publishes it.
        bbox (`tuple[float, float, float, float]`, *optional*): `(x_min, y_min, x_max, y_max)`, exclusive maxima, in
            pixels of the image: the bounds of the polygons, the mask, or the part of the heat map above 0. `None` if
            that is empty.
        polygons (`tuple[tuple[float, ...], ...]`): `(x, y, x, y, ...)` each, for `"polygon"`.
        mask (`np.ndarray` of shape `(height, width)`, *optional*): `bool` for `"mask"`, `float32` in [0, 1] for
            `"heat_map"` (stored in steps of 1/65535), else `None`.
        name (`str`): Class of the artifact in the benchmark's words; stored in the column `class`.
        caption (`str`): What is wrong there.
    """

    shape: RegionShape
    bbox: tuple[float, float, float, float] | None
    polygons: tuple[tuple[float, ...], ...] = ()
    mask: np.ndarray | None = None
    name: str = ""
    caption: str = ""


@dataclass(frozen=True, eq=False)
class BenchmarkImage:
    """
    An image of a benchmark with its annotation.

    Attributes:
        id (`str`): Unique in its split; predictions refer to it.
        image (`bytes`): The image file as published (PNG, JPEG or WebP).
        size (`tuple[int, int]`): Width and height in pixels.
        has_artifact (`bool`, *optional*): `None` if the benchmark does not say.
        regions (`tuple[Region, ...]`): Empty for a clean image, or if the benchmark gives no regions.
        caption (`str`): Prompt or caption of the image.
        explanation (`str`): What is wrong with the image as a whole.
        metadata (`dict`): Everything else that is published with it, JSON-serialisable.
    """

    id: str
    image: bytes
    size: tuple[int, int]
    has_artifact: bool | None
    regions: tuple[Region, ...] = ()
    caption: str = ""
    explanation: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


def image_size(content: bytes) -> tuple[int, int]:
    """
    Return width and height of an image file, after decoding all of its pixels.

    Raises:
        ValueError: The pixels cannot be decoded, even if the file's header gives a size.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            return image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"the image cannot be decoded: {error}") from error


def image_to_row(image: BenchmarkImage) -> dict[str, Any]:
    """
    Convert an image to a row of `BENCHMARK_FEATURES`. The image file stays as published; masks become 8-bit PNG of 0
    and 255, heat maps 16-bit PNG.
    """
    return {
        "id": image.id,
        "image": {"bytes": image.image, "path": None},
        "width": image.size[0],
        "height": image.size[1],
        "has_artifact": image.has_artifact,
        "regions": [_region_to_row(region) for region in image.regions],
        "caption": image.caption,
        "explanation": image.explanation,
        "metadata": json.dumps(image.metadata, ensure_ascii=False, allow_nan=False, sort_keys=True),
    }


def row_to_image(row: dict[str, Any]) -> BenchmarkImage:
    """
    Return the image of a row; the inverse of [`image_to_row`].

    Args:
        row (`dict`): A row of `BENCHMARK_FEATURES`, its images undecoded, as `{"bytes", "path"}`.
    """
    return BenchmarkImage(
        id=row["id"],
        image=row["image"]["bytes"],
        size=(row["width"], row["height"]),
        has_artifact=row["has_artifact"],
        regions=tuple(_row_to_region(region) for region in row["regions"]),
        caption=row["caption"],
        explanation=row["explanation"],
        metadata=json.loads(row["metadata"]),
    )


def _region_to_row(region: Region) -> dict[str, Any]:
    return {
        "shape": region.shape,
        "bbox": None if region.bbox is None else list(region.bbox),
        "polygons": [list(polygon) for polygon in region.polygons],
        "mask": None if region.mask is None else _stored(region.mask),
        "class": region.name,
        "caption": region.caption,
    }


def _row_to_region(row: dict[str, Any]) -> Region:
    return Region(
        shape=row["shape"],
        bbox=None if row["bbox"] is None else tuple(row["bbox"]),
        polygons=tuple(tuple(polygon) for polygon in row["polygons"]),
        mask=None if row["mask"] is None else _decode_mask(row["mask"]["bytes"], row["shape"]),
        name=row["class"],
        caption=row["caption"],
    )


def _stored(mask: np.ndarray) -> dict[str, Any]:
    return stored_mask(mask) if mask.dtype == bool else stored_map(mask)


def _decode_mask(content: bytes, shape: str) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        pixels = np.asarray(image)
    return pixels > 127 if shape == "mask" else (pixels / np.float64(65535)).astype(np.float32)
