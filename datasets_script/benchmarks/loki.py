"""LOKI (Ye et al., ICLR 2025): boxes and descriptions of what is wrong in 229 synthetic images."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ..schema.image import BenchmarkImage
from .base import Benchmark, Skipped
from .builder import BenchmarkBuilder
from .reading import (
    Mark,
    get_field,
    get_text,
    load_annotations,
    place_marks,
    read_image,
    read_or_skip,
    to_numbers,
)


class Loki(Benchmark):
    """
    The open-ended image questions of LOKI, on which LEGION and ArtiAgent score localization and explanation. The
    questions on whether an image is synthetic do not concern artifacts and are not read.

    `region` is x, y, width, height in pixels; boxes are clipped to the image, as in LEGION and ArtiAgent. All images
    are synthetic with annotated artifacts, so an image without a description is not clean but unknown. The published
    file is UTF-16; fields that are not documented are kept in `metadata`.
    """

    name = "loki"
    title = "LOKI (open-ended questions on images)"
    homepage = "https://opendatalab.github.io/LOKI/"
    license = "unknown"
    citation = """\
@inproceedings{ye2025loki,
  title={{LOKI}: A Comprehensive Synthetic Data Detection Benchmark using Large Multimodal Models},
  author={Ye, Junyan and Zhou, Baichuan and Huang, Zilong and Zhang, Junan and Bai, Tianyi
    and Kang, Hengrui and He, Jun and Lin, Honglin and Wang, Zihao and Wu, Tong and Wu, Zhizheng
    and Chen, Yiping and Lin, Dahua and He, Conghui and Li, Weijia},
  booktitle={International Conference on Learning Representations},
  year={2025},
}"""
    instructions = """\
Fetch the dataset bczhou/LOKI from the Hub and unpack its archive media_data.zip (7.6 GB; only the images are needed)
so that the paths in open_ended_vqa.json, its field image_path, start at the same folder:

    hf download bczhou/LOKI --repo-type dataset --local-dir loki-source

    loki-source/
      open_ended_vqa.json     a list of 229 objects with image_path and problems (global, regional)
      ...                     the images, at their image_path

The code of LOKI is under the MIT licence; no licence of the data is known, see the page of the dataset."""
    splits = {"test": 229}

    def records(
        self, source: Path, split: str, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[BenchmarkImage | Skipped, ...]]:
        annotations = load_annotations(source / "open_ended_vqa.json", self, list)
        for index, record in islice(enumerate(annotations), start, stop):
            yield read_or_skip(_record_id(record, index), partial(_read_record, source, record))

    def check(self, images: list[BenchmarkImage], split: str) -> list[str]:
        without = [image.id for image in images if not image.regions]
        if not without:
            return []
        return [f"every image is published with boxes, {len(without)} have none, such as {without[0]}"]


def _record_id(record: Any, index: int) -> str:
    path = record.get("image_path") if isinstance(record, dict) else None
    return path if isinstance(path, str) else f"record {index}"


def _read_record(source: Path, record: dict[str, Any]) -> tuple[BenchmarkImage | Skipped, ...]:
    image_path = get_field(record, "image_path", str)
    problems = get_field(record, "problems", dict)
    marks = [_read_region(region) for region in get_field(problems, "regional", list)]
    descriptions = [get_field(problem, "desc", str).strip() for problem in get_field(problems, "global", list)]
    content, size = read_image(source, image_path)
    marked = place_marks(image_path, marks, size)
    image = BenchmarkImage(
        id=image_path,
        image=content,
        size=size,
        has_artifact=True if marks or any(descriptions) else None,
        regions=marked.regions,
        explanation=" ".join(descriptions),
        metadata={
            **{key: value for key, value in record.items() if key not in ("image_path", "problems")},
            **marked.metadata,
        },
    )
    return (image, *marked.skipped)


def _read_region(region: dict[str, Any]) -> Mark:
    x, y, width, height = to_numbers(get_field(region, "region", list), "'region'", count=4)
    return Mark(box=(x, y, x + width, y + height), caption=get_text(region, "desc"))


class LokiBuilder(BenchmarkBuilder):
    """Builder of LOKI."""

    benchmark = Loki()
