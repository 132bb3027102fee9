"""What converters of benchmarks share: reading files and fields, and holding regions against their image."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import UnidentifiedImageError

from ..schema.boxes import Box
from ..schema.image import BenchmarkImage, Region, image_size
from .base import Benchmark, BenchmarkError, Skipped


Polygon = tuple[float, ...]
T = TypeVar("T")

# Rows hold images of up to megabytes.
_ROWS_AT_ONCE = 16
_KINDS: dict[Any, str] = {dict: "an object", list: "a list", str: "a string"}


class RecordError(ValueError):
    """A record, or a region of one, that cannot be read; the message is the reason."""


@dataclass(frozen=True)
class Mark:
    """A region as published, not yet held against its image: a box, or polygons. Pixels."""

    box: Box | None = None
    polygons: tuple[Polygon, ...] = ()
    name: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Marked:
    """
    Regions that lie in their image, and what became of the others.

    Attributes:
        regions (`tuple[Region, ...]`): In published order.
        skipped (`tuple[Skipped, ...]`): Regions that mark no pixel, by the image's id, `#` and their index.
        metadata (`dict`): `clipped_boxes`, the published coordinates of boxes that were cut at the image's border, and
            `skipped_regions`, both by index; only where there are any.
    """

    regions: tuple[Region, ...]
    skipped: tuple[Skipped, ...]
    metadata: dict[str, Any]


def place_marks(image_id: str, marks: Sequence[Mark], size: tuple[int, int]) -> Marked:
    """
    Holds the marks of an image against it. A box that reaches over the border is cut there; polygons are kept as they
    are, with a `bbox` that is cut. What marks no pixel (no area, fewer than 3 points, all of it outside) is skipped,
    and its image kept: no way of scoring would see it.

    Args:
        image_id (`str`): For the ids of skipped regions.
        marks (`Sequence[Mark]`): As published.
        size (`tuple[int, int]`): Width and height of the image, px.
    """
    regions, skipped, clipped, left_out = [], [], {}, []
    for index, mark in enumerate(marks):
        try:
            region = _place(mark, size)
        except RecordError as error:
            skipped.append(Skipped(f"{image_id}#{index}", str(error)))
            left_out.append(index)
            continue
        regions.append(region)
        if mark.box is not None and region.bbox != mark.box:
            clipped[str(index)] = list(mark.box)
    notes = {"clipped_boxes": clipped, "skipped_regions": left_out}
    return Marked(tuple(regions), tuple(skipped), {name: note for name, note in notes.items() if note})


def _place(mark: Mark, size: tuple[int, int]) -> Region:
    if mark.box is not None:
        return Region("box", _clip(mark.box, size, "box"), name=mark.name, caption=mark.caption)
    if not mark.polygons:
        raise RecordError("the region has no polygon")
    boxes = np.array([_polygon_box(polygon, size) for polygon in mark.polygons])
    x_min, y_min = boxes[:, :2].min(axis=0).tolist()
    x_max, y_max = boxes[:, 2:].max(axis=0).tolist()
    return Region("polygon", (x_min, y_min, x_max, y_max), mark.polygons, name=mark.name, caption=mark.caption)


def _polygon_box(polygon: Polygon, size: tuple[int, int]) -> Box:
    """The box of the part of a polygon's extent that lies in the image."""
    if len(polygon) < 6 or len(polygon) % 2:
        raise RecordError(f"a polygon must be x and y of 3 points or more, got {len(polygon)} numbers")
    points = np.array(polygon).reshape(-1, 2)
    if np.linalg.matrix_rank(points - points[0], tol=1e-6) < 2:
        raise RecordError(f"the {len(points)} points of a polygon lie on one line")
    x_min, y_min = points.min(axis=0).tolist()
    x_max, y_max = points.max(axis=0).tolist()
    return _clip((x_min, y_min, x_max, y_max), size, "polygon's box")


def _clip(box: Box, size: tuple[int, int], what: str) -> Box:
    x_min, y_min, x_max, y_max = box
    inside = (max(x_min, 0.0), max(y_min, 0.0), min(x_max, float(size[0])), min(y_max, float(size[1])))
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise RecordError(f"the {what} {list(box)} has no area in an image of {size[0]} × {size[1]}")
    return inside


def read_or_skip(
    record_id: str, read: Callable[[], tuple[BenchmarkImage | Skipped, ...]]
) -> tuple[BenchmarkImage | Skipped, ...]:
    """What `read` makes of a record; [`Skipped`] with the reason where it raises a [`RecordError`]."""
    try:
        return read()
    except RecordError as error:
        return (Skipped(record_id, str(error)),)


def read_parquet(
    shards: Sequence[Path], columns: Sequence[str], start: int = 0, stop: int | None = None
) -> Iterator[dict[str, Any]]:
    """
    Read the rows of Parquet files, one file after the other, with all of their columns. Row groups before `start` are
    not read.

    Args:
        shards (`Sequence[Path]`): The files.
        columns (`Sequence[str]`): Columns that each must have.
        start (`int`, *optional*, defaults to 0): The first row, counted over all files.
        stop (`int`, *optional*): The row to stop before.

    Raises:
        BenchmarkError: a file is damaged, or lacks one of `columns`.
    """
    first = 0
    for shard in shards:
        if stop is not None and first >= stop:
            return
        try:
            with pq.ParquetFile(shard) as file:
                found = file.schema_arrow.names
                if missing := [name for name in columns if name not in found]:
                    raise BenchmarkError(
                        f"'{shard}' must have the columns {', '.join(columns)}; it lacks {', '.join(missing)} and has "
                        f"{', '.join(found)}"
                    )
                yield from _rows_between(file, start - first, None if stop is None else stop - first)
                first += file.metadata.num_rows
        except (pa.ArrowInvalid, OSError) as error:
            raise BenchmarkError(f"'{shard}' is no whole Parquet file, fetch it again: {error}") from error


def _rows_between(file: pq.ParquetFile, start: int, stop: int | None) -> Iterator[dict[str, Any]]:
    """The rows of one file from `start`, which may lie before it or behind it, to `stop`."""
    end = 0
    for group in range(file.num_row_groups):
        row, end = end, end + file.metadata.row_group(group).num_rows
        if end <= start or (stop is not None and row >= stop):
            continue
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, row_groups=[group]):
            wanted = batch.slice(max(0, start - row))
            if stop is not None:
                wanted = wanted.slice(0, max(0, stop - max(row, start)))
            row += len(batch)
            yield from wanted.to_pylist()


def load_annotations(path: Path, benchmark: Benchmark, kind: type[T]) -> T:
    """
    The JSON file of a whole split: UTF-8, UTF-16 or UTF-32.

    Raises:
        BenchmarkError: it is missing, broken, or no `kind`.
    """
    if not path.is_file():
        raise BenchmarkError(f"found no file '{path}'\n\n{benchmark.instructions}")
    try:
        content = parse_json(path)
    except RecordError as error:
        raise BenchmarkError(f"'{path}': {error}\n\n{benchmark.instructions}") from error
    if not isinstance(content, kind):
        raise BenchmarkError(f"'{path}' must hold {_KINDS[kind]}, got {reprlib.repr(content)}")
    return content


def parse_json(path: Path) -> Any:
    """
    The content of a JSON file: UTF-8, UTF-16 or UTF-32.

    Raises:
        RecordError: it is missing or broken.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RecordError(f"the file {path.name} is missing") from None
    except ValueError as error:
        raise RecordError(f"{path.name} is not JSON: {error}") from error


def get_field(record: Any, name: str, kind: type[T]) -> T:
    """
    A field that every record must have.

    Raises:
        RecordError: `record` is no object, or the field is missing or no `kind` (`dict`, `list` or `str`).
    """
    if not isinstance(record, dict):
        raise RecordError(f"expected an object with the field '{name}', got {reprlib.repr(record)}")
    value = record.get(name)
    if not isinstance(value, kind):
        raise RecordError(f"'{name}' must be {_KINDS[kind]}, got {reprlib.repr(value)}")
    return value


def get_text(record: dict[str, Any], name: str) -> str:
    """A text that may be missing, null or, as some write it, `"None"`: empty then."""
    text = str(record.get(name) or "").strip()
    return "" if text == "None" else text


def to_numbers(values: Any, what: str, count: int | None = None) -> tuple[float, ...]:
    """
    Coordinates as floats.

    Args:
        values (`Any`): What a file gives for them.
        what (`str`): For the message.
        count (`int`, *optional*): How many there must be.

    Raises:
        RecordError: `values` is no list of finite numbers, or not of `count`.
    """
    if not isinstance(values, list) or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in values):
        raise RecordError(f"{what} must be a list of numbers, got {reprlib.repr(values)}")
    if count is not None and len(values) != count:
        raise RecordError(f"{what} must be {count} numbers, got {len(values)}")
    return tuple(float(value) for value in values)


def read_image(folder: Path, name: str) -> tuple[bytes, tuple[int, int]]:
    """
    An image file as published, and its width and height.

    Args:
        folder (`Path`): Where the images are; nothing outside of it is read.
        name (`str`): Path below it.

    Raises:
        RecordError: it is not there or cannot be decoded.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise RecordError(f"the path of the image, '{name}', leads out of its folder")
    if not (folder / path).is_file():
        raise RecordError(f"the image {name} is missing")
    content = (folder / path).read_bytes()
    return content, decoded_size(content, f"the image {name}")


def decoded_size(content: bytes, what: str) -> tuple[int, int]:
    """
    Width and height of an image file whose pixels can all be decoded; `what` it is, for the message.

    Raises:
        RecordError: they cannot.
    """
    try:
        return image_size(content)
    except ValueError as error:
        # What Pillow says of a file of another kind holds an address, which differs from run to run.
        unknown = isinstance(error.__cause__, UnidentifiedImageError)
        raise RecordError(f"{what} is no image" if unknown else f"{what}: {error}") from error
