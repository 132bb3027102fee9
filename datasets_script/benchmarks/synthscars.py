"""SynthScars (Kang et al., ICCV 2025): polygons and explanations of artifacts in synthetic images."""

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
    RecordError,
    get_field,
    get_text,
    load_annotations,
    place_marks,
    read_image,
    read_or_skip,
    to_numbers,
)


class SynthScars(Benchmark):
    """
    Synthetic images with polygons around artifacts and explanations. A record is an annotation, not an image: in
    `train` some images have several. Every image was chosen for its artifacts, so an image without regions is not
    clean but unknown. The published files hold neither the paper's three categories of artifacts nor its kinds of
    content nor boxes (`bbox` is null). Their `caption`, the description of artifacts that LEGION is trained to give,
    becomes the `explanation`.

    Known issues of the published files, from a public audit: annotation 317 of `train` has a polygon of three
    collinear points, which is skipped; three regions of `train` have no explanation; some polygons exceed the border
    by a rounding error.
    """

    name = "synthscars"
    title = "SynthScars"
    homepage = "https://opendatalab.github.io/LEGION/"
    license = "apache-2.0"
    citation = """\
@inproceedings{kang2025legion,
  title={{LEGION}: Learning to Ground and Explain for Synthetic Image Detection},
  author={Kang, Hengrui and Wen, Siwei and Wen, Zichen and Ye, Junyan and Li, Weijia and Feng, Peilin
    and Zhou, Baichuan and Wang, Bin and Lin, Dahua and Zhang, Linfeng and He, Conghui},
  booktitle={Proceedings of the IEEE/CVF International Conference on Computer Vision},
  year={2025},
}"""
    instructions = """\
Fetch SynthScars.zip of the dataset khr0516/SynthScars from the Hub and unpack it. The source is the folder that holds
train and test, or only one of them:

    hf download khr0516/SynthScars SynthScars.zip --repo-type dataset --local-dir .
    unzip SynthScars.zip

    SynthScars/
      train/images/*            train/annotations/train.json
      test/images/*             test/annotations/test.json"""
    splits = {"train": 11236, "test": 1000}

    def records(
        self, source: Path, split: str, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[BenchmarkImage | Skipped, ...]]:
        folder = source / split
        annotations = load_annotations(folder / "annotations" / f"{split}.json", self, list)
        for index, entry in islice(enumerate(annotations), start, stop):
            name = next(iter(entry)) if isinstance(entry, dict) and len(entry) == 1 else f"entry {index}"
            yield read_or_skip(name, partial(_read_entry, folder / "images", entry))

    def check(self, images: list[BenchmarkImage], split: str) -> list[str]:
        without = [image.id for image in images if not image.regions]
        if not without:
            return []
        return [f"every image is published with artifacts, {len(without)} have none, such as {without[0]}"]


def _read_entry(folder: Path, entry: dict[str, Any]) -> tuple[BenchmarkImage | Skipped, ...]:
    if not isinstance(entry, dict) or len(entry) != 1:
        raise RecordError("an entry must be an object of one annotation, by its id")
    [(name, annotation)] = entry.items()
    references = get_field(annotation, "refs", list)
    marks = [_read_reference(reference) for reference in references]
    file_name = get_field(annotation, "img_file_name", str)
    content, size = read_image(folder, file_name)
    marked = place_marks(name, marks, size)
    image = BenchmarkImage(
        id=name,
        image=content,
        size=size,
        has_artifact=True if marks else None,
        regions=marked.regions,
        explanation=get_field(annotation, "caption", str).strip(),
        metadata={
            "img_file_name": file_name,
            "phrases": [get_text(reference, "sentence") for reference in references],
            **marked.metadata,
        },
    )
    return (image, *marked.skipped)


def _read_reference(reference: dict[str, Any]) -> Mark:
    polygons = get_field(reference, "segmentation", list)
    return Mark(
        polygons=tuple(to_numbers(polygon, "a polygon of 'segmentation'") for polygon in polygons),
        caption=get_text(reference, "explanation"),
    )


class SynthScarsBuilder(BenchmarkBuilder):
    """Builder of SynthScars."""

    benchmark = SynthScars()
