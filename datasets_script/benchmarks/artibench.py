"""ArtiBench (Park et al., CVPR 2026): images of recent generators with boxes, types, captions and explanations."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from evaluate_metrics.functional.citations import ARTIAGENT

from ..schema.image import BenchmarkImage, Region
from .base import Benchmark, BenchmarkError, Skipped
from .builder import BenchmarkBuilder
from .reading import RecordError, decoded_size, read_or_skip, read_parquet, to_numbers


_COLUMNS = ("id", "image", "has_artifacts", "explanation", "bboxes")
_BOX_FIELDS = ("bbox", "category", "caption")


class ArtiBench(Benchmark):
    """
    1,000 images of SD3.5-Large, FLUX-schnell, FLUX-dev, Qwen-Image and Nano-Banana, half of them with structural
    artifacts.

    The column names are those of published code that reads the files. A box has the fields that the authors'
    annotation tool writes: `bbox` (x1, y1, x2, y2 relative to the image), `category` and `caption`. The converter
    stops at other fields and names them. Boxes with a coordinate above 1 are read as pixels. Classes keep the names of
    the benchmark, and further columns are kept in `metadata`.
    """

    name = "artibench"
    title = "ArtiBench"
    homepage = "https://huggingface.co/datasets/KRAFTON/ArtiBench"
    license = "cc-by-nc-4.0"
    citation = ARTIAGENT
    instructions = """\
Fetch the dataset KRAFTON/ArtiBench from the Hub, or give its id as the source:

    hf download KRAFTON/ArtiBench --repo-type dataset --include "data/*" --local-dir artibench-source

    artibench-source/
      data/test-00000-of-00003.parquet, ...    columns id, image, has_artifacts, explanation, bboxes

The images are read from the Parquet files; some of the separate files in images/ are reported to be truncated."""
    splits = {"test": 1000}
    hub_files = ("data/*.parquet",)

    def records(
        self, source: Path, split: str, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[BenchmarkImage | Skipped, ...]]:
        shards = sorted((source / "data").glob(f"{split}-*.parquet"))
        if not shards:
            raise BenchmarkError(f"found no data/{split}-*.parquet in '{source}'\n\n{self.instructions}")
        for row in read_parquet(shards, _COLUMNS, start, stop):
            yield read_or_skip(str(row["id"]), partial(_read_row, row))

    def check(self, images: list[BenchmarkImage], split: str) -> list[str]:
        flawed = sum(bool(image.has_artifact) for image in images)
        clean_with_boxes = [image.id for image in images if image.regions and not image.has_artifact]
        flawed_without = [image.id for image in images if image.has_artifact and not image.regions]
        problems = []
        if 2 * flawed != len(images):
            problems.append(f"half of the images are published with artifacts, {flawed} of {len(images)} have them")
        if clean_with_boxes:
            problems.append(f"{len(clean_with_boxes)} clean images have boxes, such as {clean_with_boxes[0]}")
        if flawed_without:
            problems.append(f"{len(flawed_without)} images with artifacts have no box, such as {flawed_without[0]}")
        return problems


def _read_row(row: dict[str, Any]) -> tuple[BenchmarkImage]:
    content = (row["image"] or {}).get("bytes")
    if not content:
        raise RecordError("the row holds no image")
    if not isinstance(row["has_artifacts"], bool):
        raise RecordError(f"has_artifacts must be true or false, got {row['has_artifacts']!r}")
    size = decoded_size(content, "the image")
    image = BenchmarkImage(
        id=str(row["id"]),
        image=content,
        size=size,
        has_artifact=row["has_artifacts"],
        regions=tuple(_read_box(box, size) for box in _list_boxes(row["bboxes"])),
        caption=row.get("prompt") or "",
        explanation=row["explanation"] or "",
        metadata={key: value for key, value in row.items() if key not in (*_COLUMNS, "prompt")},
    )
    return (image,)


def _list_boxes(boxes: Any) -> list[Any]:
    """Return the boxes of a row, which may be a string of JSON."""
    try:
        listed = json.loads(boxes) if isinstance(boxes, str) else boxes or []
    except ValueError as error:
        raise RecordError(f"'bboxes' is not JSON: {error}") from error
    if not isinstance(listed, list):
        raise BenchmarkError(f"'bboxes' must be a list, got {reprlib.repr(listed)}")
    return listed


def _read_box(box: Any, size: tuple[int, int]) -> Region:
    if not isinstance(box, dict) or not box.keys() >= set(_BOX_FIELDS):
        raise BenchmarkError(f"boxes must have the fields {', '.join(_BOX_FIELDS)}, got {reprlib.repr(box)}")
    x_min, y_min, x_max, y_max = to_numbers(box["bbox"], "'bbox'", count=4)
    if max(x_max, y_max) <= 1:
        x_min, y_min, x_max, y_max = x_min * size[0], y_min * size[1], x_max * size[0], y_max * size[1]
    if not (0 <= x_min < x_max <= size[0] and 0 <= y_min < y_max <= size[1]):
        raise RecordError(f"the box {list(box['bbox'])} is empty or not in an image of {size[0]} × {size[1]}")
    return Region("box", (x_min, y_min, x_max, y_max), name=box["category"] or "", caption=box["caption"] or "")


class ArtiBenchBuilder(BenchmarkBuilder):
    """Builder of ArtiBench."""

    benchmark = ArtiBench()
