"""SynArtifact-1K (Cao et al., 2024): rectangles, classes and captions of artifacts in synthetic images."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from evaluate_metrics.functional.citations import SYNARTIFACT
from evaluate_metrics.functional.classification import CLASSES, NO_ARTIFACTS

from ..schema.image import BenchmarkImage
from .base import Benchmark, BenchmarkError, Skipped
from .builder import BenchmarkBuilder
from .reading import (
    Mark,
    RecordError,
    get_field,
    get_text,
    parse_json,
    place_marks,
    read_image,
    read_or_skip,
    to_numbers,
)


_LISTS = {"train": "train.txt", "test": "eval.txt"}
_READ_FIELDS = ("Prompt", "Image path", "Artifacts annotation", "Other artifacts caption")
_PUBLISHED_CLASSES = tuple(known for known in CLASSES if known != NO_ARTIFACTS)


class SynArtifact(Benchmark):
    """
    Images with rectangles around artifacts, their classes and captions.

    `artifacts_class` counts from 0 in the order of the paper's list, as a number or a string: 0 is illegible letters,
    12 is other artifacts. The file that defines this, artifact_class.csv, is not in the repository; the captions of
    the published annotations agree with it ("letters are illegible" is 0, "the hand is distorted" 2, "lack fingers" 4,
    "the face is blurred" 11).

    Rectangles run from `rect_start` to `rect_end` in any direction; the greater coordinates are read as exclusive
    maxima. Rectangles are clipped to the image.

    Images with rectangles have artifacts. Images without rectangles are clean, unless `Other artifacts caption`
    describes something (such as "the whole image is too blurred"): then `has_artifact` is null, because the paper's
    counts (768 with, 542 without artifacts) seem to include them in the images without artifacts, but its annotators
    did not.
    """

    name = "synartifact"
    title = "SynArtifact-1K"
    homepage = "https://github.com/BBBiiinnn/SynArtifact"
    license = "unknown"
    citation = SYNARTIFACT
    instructions = """\
Clone the authors' repository, which holds the data; it states no licence:

    git clone https://github.com/BBBiiinnn/SynArtifact synartifact-source

    synartifact-source/data/
      train.txt, eval.txt                                                 lines such as sub_data_0/images/000000001.png
      sub_data_0/images/000000001.png                                     and so on to sub_data_4; .jpg and .webp too
      sub_data_0/annotation_json_artifacts_class/000000001.json"""
    splits = {"train": 1045, "test": 265}

    def records(
        self, source: Path, split: str, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[BenchmarkImage | Skipped, ...]]:
        listing = source / "data" / _LISTS[split]
        if not listing.is_file():
            raise BenchmarkError(f"found no file '{listing}'\n\n{self.instructions}")
        for line in listing.read_text(encoding="utf-8").split()[start:stop]:
            path = PurePosixPath(line)
            if len(path.parts) != 3 or path.parts[1] != "images":
                raise BenchmarkError(
                    f"'{listing}' must list paths such as sub_data_0/images/000000001.png, got '{line}'"
                )
            name = f"{path.parts[0]}/{path.stem}"
            yield read_or_skip(name, partial(_read_image, listing.parent, path, name))


def _read_image(folder: Path, path: PurePosixPath, name: str) -> tuple[BenchmarkImage | Skipped, ...]:
    content, size = read_image(folder, str(path))
    record = parse_json(folder / path.parts[0] / "annotation_json_artifacts_class" / f"{path.stem}.json")
    if get_field(record, "Image path", str) != str(path):
        raise RecordError(f"the annotation is of another image, {record['Image path']}")
    marks = [_read_rectangle(artifact) for artifact in get_field(record, "Artifacts annotation", list)]
    other = get_text(record, "Other artifacts caption")
    marked = place_marks(name, marks, size)
    image = BenchmarkImage(
        id=name,
        image=content,
        size=size,
        has_artifact=True if marks else None if other else False,
        regions=marked.regions,
        caption=get_text(record, "Prompt"),
        explanation=other,
        metadata={
            **{key: value for key, value in record.items() if key not in _READ_FIELDS},
            **marked.metadata,
        },
    )
    return (image, *marked.skipped)


def _read_rectangle(artifact: dict[str, Any]) -> Mark:
    x_start, y_start = to_numbers(get_field(artifact, "rect_start", list), "'rect_start'", count=2)
    x_end, y_end = to_numbers(get_field(artifact, "rect_end", list), "'rect_end'", count=2)
    return Mark(
        box=(min(x_start, x_end), min(y_start, y_end), max(x_start, x_end), max(y_start, y_end)),
        name=_class_name(artifact.get("artifacts_class")),
        caption=get_text(artifact, "artifacts_caption"),
    )


def _class_name(number: Any) -> str:
    """Return the name, as in the metrics, of a class that is counted from 0."""
    text = str(number)
    if not text.isdecimal() or int(text) >= len(_PUBLISHED_CLASSES):
        raise RecordError(f"'artifacts_class' must be 0 to {len(_PUBLISHED_CLASSES) - 1}, got {number!r}")
    return _PUBLISHED_CLASSES[int(text)].name


class SynArtifactBuilder(BenchmarkBuilder):
    """Builder of SynArtifact-1K."""

    benchmark = SynArtifact()
