"""Helpers shared by the converters: reading of files and fields, and checks of regions against their image."""

from __future__ import annotations

import json
import math
import os
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

# Rows hold images of up to several megabytes.
_ROWS_AT_ONCE = 16
# Largest distance of a polygon's point from the middle of its image, in widths and heights; the metrics take no other.
_FARTHEST = 1.5
_KINDS: dict[Any, str] = {dict: "an object", list: "a list", str: "a string"}


class RecordError(ValueError):
    """Raised if a record or a region cannot be read; the message is the reason."""


@dataclass(frozen=True)
class Mark:
    """Region as published, a box or polygons in pixels, not yet checked against its image."""

    box: Box | None = None
    polygons: tuple[Polygon, ...] = ()
    name: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Marked:
    """
    Regions that lie in their image, and the skipped ones.

    Attributes:
        regions (`tuple[Region, ...]`): Regions, in published order.
        skipped (`tuple[Skipped, ...]`): Regions that mark no pixel; the id is that of the image, `#` and their index.
        metadata (`dict`): `clipped_boxes`, the published coordinates of clipped boxes by index, and
            `skipped_regions`, the indices of skipped regions; only where there are any.
    """

    regions: tuple[Region, ...]
    skipped: tuple[Skipped, ...]
    metadata: dict[str, Any]


def place_marks(image_id: str, marks: Sequence[Mark], size: tuple[int, int]) -> Marked:
    """
    Check the regions of an image against its size. Boxes are clipped to the image; polygons are kept as published,
    with a clipped `bbox`. Regions that mark no pixel (no area, fewer than 3 points, or outside the image) are skipped,
    as no metric would count them, and the image is kept.

    Args:
        image_id (`str`): Id of the image, for the ids of skipped regions.
        marks (`Sequence[Mark]`): Regions as published.
        size (`tuple[int, int]`): Width and height of the image, px.

    Returns:
        `Marked`: Regions, skipped regions and metadata.
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
    """Compute the box of a polygon, clipped to the image."""
    if len(polygon) < 6 or len(polygon) % 2:
        raise RecordError(f"a polygon must be x and y of 3 points or more, got {len(polygon)} numbers")
    points = np.array(polygon).reshape(-1, 2)
    if np.linalg.matrix_rank(points - points[0], tol=1e-6) < 2:
        raise RecordError(f"the {len(points)} points of a polygon lie on one line")
    if (np.abs(points / size - 0.5) > _FARTHEST).any():
        raise RecordError(
            f"a polygon must lie within one width or height of its image of {size[0]} × {size[1]}, got "
            f"{reprlib.repr(polygon)}"
        )
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
    """Read a record with `read`; return [`Skipped`] with the reason if it raises a [`RecordError`]."""
    try:
        return read()
    except RecordError as error:
        return (Skipped(record_id, str(error)),)


def read_parquet(
    shards: Sequence[Path], columns: Sequence[str], start: int = 0, stop: int | None = None
) -> Iterator[dict[str, Any]]:
    """
    Read the rows of Parquet files with all their columns, one file after the other. Row groups before `start` are not
    read.

    Args:
        shards (`Sequence[Path]`): The files.
        columns (`Sequence[str]`): Columns that each file must have.
        start (`int`, *optional*, defaults to 0): Number of the first row, counted over all files.
        stop (`int`, *optional*): Number of the row to stop before; by default all are read.

    Raises:
        BenchmarkError: a file is damaged or lacks one of `columns`.
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
            raise BenchmarkError(f"'{shard}' is not a complete Parquet file, fetch it again: {error}") from error


def _rows_between(file: pq.ParquetFile, start: int, stop: int | None) -> Iterator[dict[str, Any]]:
    """Yield the rows of one file from `start` to `stop`; both may lie outside the file."""
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
    Load the JSON file of a whole split, in UTF-8, UTF-16 or UTF-32.

    Args:
        path (`Path`): The file.
        benchmark (`Benchmark`): The benchmark, whose instructions go into error messages.
        kind (`type`): Type that the content must have: `dict`, `list` or `str`.

    Raises:
        BenchmarkError: the file is missing, is not JSON, or holds another type.
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
    Parse a JSON file in UTF-8, UTF-16 or UTF-32.

    Raises:
        RecordError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RecordError(f"the file {path.name} is missing") from None
    except ValueError as error:
        raise RecordError(f"{path.name} is not JSON: {error}") from error


def get_field(record: Any, name: str, kind: type[T]) -> T:
    """
    Return a field that every record must have.

    Args:
        record (`Any`): The record.
        name (`str`): Name of the field.
        kind (`type`): Type that the field must have: `dict`, `list` or `str`.

    Raises:
        RecordError: `record` is not an object, or the field is missing or has another type.
    """
    if not isinstance(record, dict):
        raise RecordError(f"expected an object with the field '{name}', got {reprlib.repr(record)}")
    value = record.get(name)
    if not isinstance(value, kind):
        raise RecordError(f"'{name}' must be {_KINDS[kind]}, got {reprlib.repr(value)}")
    return value


def get_text(record: dict[str, Any], name: str) -> str:
    """Return a text field; empty if it is missing, null or the string `"None"`."""
    text = str(record.get(name) or "").strip()
    return "" if text == "None" else text


def to_numbers(values: Any, what: str, count: int | None = None) -> tuple[float, ...]:
    """
    Convert coordinates to floats.

    Args:
        values (`Any`): The coordinates as published.
        what (`str`): What they are, for the error message.
        count (`int`, *optional*): Required number of coordinates; any by default.

    Raises:
        RecordError: `values` is not a list of finite numbers, or does not have `count` of them.
    """
    if not isinstance(values, list) or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in values):
        raise RecordError(f"{what} must be a list of numbers, got {reprlib.repr(values)}")
    if count is not None and len(values) != count:
        raise RecordError(f"{what} must be {count} numbers, got {len(values)}")
    return tuple(float(value) for value in values)


def read_image(folder: Path, name: str) -> tuple[bytes, tuple[int, int]]:
    """
    Read an image file and its size.

    Args:
        folder (`Path`): Folder of the images; nothing outside it is read.
        name (`str`): Path of the file, relative to `folder`.

    Returns:
        `tuple[bytes, tuple[int, int]]`: Content of the file; width and height, px.

    Raises:
        RecordError: the file is missing or cannot be decoded.
    """
    path = PurePosixPath(name)
    if ".." in path.parts:
        raise RecordError(f"the path of the image, '{name}', leads out of its folder")
    # An absolute path is one of the authors' machine; its file is the one of that name in the folder.
    found = _named(folder, path.name, name) if path.is_absolute() else folder / path
    try:
        if not found.resolve().is_relative_to(_root(folder)):
            raise RecordError(f"the image {name} is a link that leads out of its folder")
        if not found.is_file():
            raise RecordError(f"the image {name} is missing")
        content = found.read_bytes()
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"the image {name} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return content, decoded_size(content, f"the image {name}")


def _root(folder: Path) -> Path:
    """Return the folder that links may lead to: a snapshot in the Hub's cache links to the blobs of its repository."""
    resolved = folder.resolve()
    snapshots = [parent for parent in resolved.parents if parent.name == "snapshots"]
    return snapshots[0].parent if snapshots and (snapshots[0].parent / "blobs").is_dir() else resolved


def _named(folder: Path, file_name: str, name: str) -> Path:
    """Return the only file of a name in a folder."""
    found = [Path(parent, file_name) for parent, _, files in os.walk(folder) if file_name in files]
    if len(found) != 1:
        how_often = f"{len(found)} files of its name are" if found else "no file of its name is"
        raise RecordError(f"the path of the image, '{name}', leads out of its folder, and {how_often} in it")
    return found[0]


def decoded_size(content: bytes, what: str) -> tuple[int, int]:
    """
    Decode an image file completely and return its width and height, px.

    Args:
        content (`bytes`): Content of the file.
        what (`str`): What it is, for the error message.

    Raises:
        RecordError: the file cannot be decoded.
    """
    try:
        return image_size(content)
    except ValueError as error:
        # Pillow's message for a file that is not an image holds a memory address, which differs from run to run.
        unknown = isinstance(error.__cause__, UnidentifiedImageError)
        raise RecordError(f"{what} is no image" if unknown else f"{what}: {error}") from error
