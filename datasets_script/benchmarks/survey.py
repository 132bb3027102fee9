"""Survey of a split: counts, checked against the publication before anything is written."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import datasets

from ..edits.digests import image_digest
from ..edits.planned import EditSurvey
from ..schema.image import BenchmarkImage, image_to_row
from ..utils.files import write_text
from .base import Benchmark, BenchmarkError, Skipped
from .upright import upright


logger = datasets.utils.logging.get_logger(__name__)

SKIPPED_FILE = "skipped.jsonl"

_EXAMPLES = 5
# Quoted names, files and numbers, in which reasons of one kind differ.
_NAMES = re.compile(r"'[^']*'|\S*/\S*|\S+\.\w{2,4}\b|-?\d+(\.\d+)?")


@dataclass(frozen=True)
class Survey:
    """
    Content of a split.

    Attributes:
        split (`str`): Name of the split.
        images (`int`): Number of images that could be read.
        places (`tuple[int, ...]`): Number of the record of each image, from 0.
        with_artifact (`dict[bool | None, int]`): Number of images by `has_artifact`.
        skipped (`tuple[Skipped, ...]`): Records and regions that could not be read.
        problems (`tuple[str, ...]`): Contradictions to the publication, in words.
    """

    split: str
    images: int
    places: tuple[int, ...] = ()
    with_artifact: dict[bool | None, int] = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    problems: tuple[str, ...] = ()


def survey_split(benchmark: Benchmark, source: Path, split: str, edits: EditSurvey | None = None) -> Survey:
    """
    Read a split to count and check it.

    Args:
        benchmark (`Benchmark`): The benchmark.
        source (`Path`): Folder with the published files.
        split (`str`): Name of the split.
        edits (`EditSurvey`, *optional*): Survey of edits, which sees the images.

    Returns:
        `Survey`: Counts and contradictions to the publication.

    Raises:
        BenchmarkError: files are missing or differ from the published layout.
    """
    images: list[BenchmarkImage] = []
    places: list[int] = []
    skipped: list[Skipped] = []
    for place, record in enumerate(benchmark.records(source, split)):
        for item in record:
            if isinstance(item, Skipped):
                skipped.append(item)
            else:
                if edits is not None:
                    edits.see((split, item.id), partial(_digest, item))
                images.append(_without_pixels(item))
                places.append(place)
    problems = list(benchmark.check(images, split))
    published = benchmark.splits[split]
    if published is not None and len(images) != published:
        problems.insert(
            0, f"{published} images are published, {len(images)} could be read, {len(skipped)} records were left out"
        )
    twice = [name for name, count in Counter(image.id for image in images).items() if count > 1]
    if twice:
        problems.append(f"ids must be unique, {len(twice)} are not, such as '{twice[0]}'")
    with_artifact = Counter(image.has_artifact for image in images)
    return Survey(split, len(images), tuple(places), dict(with_artifact), tuple(skipped), tuple(problems))


def _digest(image: BenchmarkImage) -> str:
    return image_digest(image_to_row(upright(image)))


def _without_pixels(image: BenchmarkImage) -> BenchmarkImage:
    """Drop the pixels, so that all images of a large benchmark fit into memory."""
    return replace(image, image=b"", regions=tuple(replace(region, mask=None) for region in image.regions))


def report_surveys(benchmark: Benchmark, surveys: list[Survey], allow_partial: bool) -> None:
    """
    Log what was skipped and what differs from the publication.

    Args:
        benchmark (`Benchmark`): The benchmark.
        surveys (`list[Survey]`): Surveys of its splits.
        allow_partial (`bool`): Whether to log differences instead of raising an error.

    Raises:
        BenchmarkError: something differs and `allow_partial` is off, or no image of a split could be read.
    """
    for survey in surveys:
        if survey.skipped:
            logger.warning(f"{benchmark.name}, {survey.split}: {skipped_summary(survey.skipped)}")
    differences = [f"{survey.split}: {problem}" for survey in surveys for problem in survey.problems]
    reasons = [f"{survey.split}: {skipped_summary(survey.skipped)}" for survey in surveys if survey.skipped]
    empty = [survey.split for survey in surveys if not survey.images]
    if empty:
        raise BenchmarkError("\n".join([f"{benchmark.name}: no image of {', '.join(empty)} could be read", *reasons]))
    if not differences:
        return
    message = "\n  ".join([f"{benchmark.name} differs from the publication:", *differences, *reasons])
    if not allow_partial:
        raise BenchmarkError(
            f"{message}\nFetch the files again, or use them as they are with `allow_partial` (--allow-partial)."
        )
    logger.warning(message)


def skipped_summary(skipped: tuple[Skipped, ...]) -> str:
    """Summarise the records that were left out, by reason with five examples; only names and numbers may differ."""
    examples: dict[str, list[Skipped]] = {}
    counts: Counter[str] = Counter()
    for record in skipped:
        kind = _NAMES.sub("…", record.reason.replace(record.id, "…"))
        counts[kind] += 1
        examples.setdefault(kind, []).append(record)
    parts = [
        f"{count} × {examples[kind][0].reason} ({', '.join(record.id for record in examples[kind][:_EXAMPLES])}"
        f"{', …' if count > _EXAMPLES else ''})"
        for kind, count in counts.most_common(10)
    ]
    more = len(counts) - len(parts)
    return f"{len(skipped)} left out: {'; '.join(parts)}{f'; and {more} other reasons' if more else ''}"


def write_skipped(folder: Path, surveys: list[Survey]) -> None:
    """Write split, id and reason of every record that was left out to `skipped.jsonl`."""
    records = [{"split": survey.split, **asdict(record)} for survey in surveys for record in survey.skipped]
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    write_text(folder / SKIPPED_FILE, "".join(lines))
