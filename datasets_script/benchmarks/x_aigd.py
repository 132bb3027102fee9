"""X-AIGD (Xiao et al., ICLR 2026): human-drawn polygons of artifacts in seven classes, for 13 generators."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ..schema.image import BenchmarkImage
from .base import Benchmark, BenchmarkError, Skipped
from .builder import BenchmarkBuilder
from .reading import (
    Mark,
    RecordError,
    decoded_size,
    get_field,
    get_text,
    place_marks,
    read_or_skip,
    read_parquet,
    to_numbers,
)


CATEGORIES = (
    "low-level-edge_shape",
    "low-level-texture",
    "low-level-color",
    "low-level-symbol",
    "high-level-semantics",
    "cognitive-level-commonsense",
    "cognitive-level-physics",
)
_COLUMNS = ("image", "generator", "uid", "labels", "width", "height")
_READ_FIELDS = ("image", "labels", "width", "height", "original_prompt")


class XAigd(Benchmark):
    """
    The labelled splits of X-AIGD; the unlabelled ones (48,651 images) have no annotations of artifacts. The id of an
    image consists of its generator and its `uid`, as in the authors' prediction files.

    An image with an empty list of labels is clean, as in the authors' scoring. If there is no list (null),
    `has_artifact` is unknown. Points are in pixels of the image. They are kept as published, while the authors' code
    truncates them to integers and moves points beyond the last pixel onto it before drawing.
    """

    name = "x_aigd"
    title = "X-AIGD"
    homepage = "https://github.com/Coxy7/X-AIGD"
    license = "cc-by-4.0"
    citation = """\
@article{xiao2026unveiling,
  title={Unveiling Perceptual Artifacts: A Fine-Grained Benchmark for Interpretable {AI}-Generated Image Detection},
  author={Xiao, Yao and Chen, Weiyan and Chen, Jiahao and Cao, Zijie and Deng, Weijian and Yang, Binbin
    and Dong, Ziyi and Ji, Xiangyang and Ke, Wei and Wei, Pengxu and Lin, Liang},
  journal={arXiv preprint arXiv:2601.19430},
  year={2026},
}"""
    instructions = """\
Fetch the labelled files (4.7 GB) of the dataset Coxy7/X-AIGD from the Hub; the whole dataset has 75 GB:

    hf download Coxy7/X-AIGD --repo-type dataset --include "data/labeled_*" --local-dir x-aigd-source

    x-aigd-source/
      data/labeled_train-*.parquet
      data/labeled_test-*.parquet      columns image, generator, uid, labels (label, points), width, height, ..."""
    # Models are scored on the first split by default.
    splits = {"labeled_test": 2419, "labeled_train": 918}
    hub_files = ("data/labeled_*.parquet",)

    def records(
        self, source: Path, split: str, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[BenchmarkImage | Skipped, ...]]:
        shards = sorted((source / "data").glob(f"{split}-*.parquet"))
        if not shards:
            raise BenchmarkError(f"found no data/{split}-*.parquet in '{source}'\n\n{self.instructions}")
        for row in read_parquet(shards, _COLUMNS, start, stop):
            name = f"{row['generator']}/{row['uid']}"
            yield read_or_skip(name, partial(_read_row, name, row))


def _read_row(name: str, row: dict[str, Any]) -> tuple[BenchmarkImage | Skipped, ...]:
    content = (row["image"] or {}).get("bytes")
    if not content:
        raise RecordError("the row holds no image")
    size = decoded_size(content, "the image")
    if size != (row["width"], row["height"]):
        raise RecordError(f"the image is {size[0]} × {size[1]}, its row says {row['width']} × {row['height']}")
    marks = [_read_label(label) for label in row["labels"] or []]
    marked = place_marks(name, marks, size)
    image = BenchmarkImage(
        id=name,
        image=content,
        size=size,
        has_artifact=None if row["labels"] is None else bool(marks),
        regions=marked.regions,
        caption=get_text(row, "original_prompt"),
        metadata={
            **{key: _null_if_nan(value) for key, value in row.items() if key not in _READ_FIELDS},
            **marked.metadata,
        },
    )
    return (image, *marked.skipped)


def _read_label(label: dict[str, Any]) -> Mark:
    category = get_field(label, "label", str)
    if category not in CATEGORIES:
        raise RecordError(f"'label' must be one of {', '.join(CATEGORIES)}, got '{category}'")
    points = [to_numbers(point, "a point of 'points'", count=2) for point in get_field(label, "points", list)]
    return Mark(polygons=(tuple(value for point in points for value in point),), name=category)


def _null_if_nan(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


class XAigdBuilder(BenchmarkBuilder):
    """Builder of X-AIGD."""

    benchmark = XAigd()
