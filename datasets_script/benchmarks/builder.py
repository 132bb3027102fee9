"""Builder of `datasets` for benchmarks: converts the published files to rows of `BENCHMARK_FEATURES`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import datasets
from datasets import Features

from ..edits.image_rows import edited_image
from ..edits.layer import EDITS_FILE, EditLayer
from ..edits.planned import EditReport, EditSurvey, PlannedEdits
from ..edits.records import SampleEdits
from ..schema.image import BENCHMARK_FEATURES, BenchmarkImage, image_to_row
from .base import Benchmark, BenchmarkError
from .source import choose_splits, find_source
from .survey import Survey, report_surveys, survey_split, write_skipped


logger = datasets.utils.logging.get_logger(__name__)


# More shards than processes that are likely to read; each is a range of the records of a split.
_SHARDS = 32


@dataclass
class BenchmarkConfig(datasets.BuilderConfig):
    """
    Configuration of a [`BenchmarkBuilder`].

    Args:
        source (`str`, *optional*): Folder with the published files, or the id of a dataset on the Hub.
        splits (`str`, *optional*): Comma-separated names of the splits to read; all by default.
        allow_partial (`bool`, *optional*, defaults to `False`): Whether to continue if the files contradict the
            published counts.
        edits (`str`, *optional*): Folder of a prepared copy of the benchmark, whose edits are applied.
    """

    source: str | None = None
    splits: str | None = None
    allow_partial: bool = False
    edits: str | None = None

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: Features | None = None) -> str:
        """Name the cache folder after the options; a relative source is made absolute to be unambiguous."""
        given = {name: value for name, value in config_kwargs.items() if value not in (None, {}, False)}
        if "source" in given and Path(given["source"]).is_dir():
            given["source"] = os.path.abspath(given["source"])
        if "edits" in given:
            layer = Path(given["edits"], EDITS_FILE).absolute()
            given["edits"] = f"{layer} {layer.stat().st_size} {layer.stat().st_mtime_ns}" if layer.exists() else ""
        return super().create_config_id(given, custom_features)


class BenchmarkBuilder(datasets.GeneratorBasedBuilder):
    """
    Base class of the builders of benchmarks; subclasses set `benchmark`. The source is read twice: to count and check
    before anything is written, and to write.

    Attributes:
        benchmark (`Benchmark`): The benchmark to read.
        surveys (`list[Survey]`): Surveys of the splits; empty until the source has been read.
        edits (`EditReport`): What became of people's edits, once the source has been read.
    """

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIG_CLASS = BenchmarkConfig
    # Images are bytes of up to megabytes.
    DEFAULT_WRITER_BATCH_SIZE = 100

    benchmark: ClassVar[Benchmark]

    def __init__(self, *args: Any, **kwargs: Any):
        self.surveys: list[Survey] = []
        self.edits = EditReport()
        super().__init__(*args, **kwargs)

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description=self.benchmark.title,
            features=BENCHMARK_FEATURES,
            homepage=self.benchmark.homepage,
            license=self.benchmark.license,
            citation=self.benchmark.citation,
        )

    def download_and_prepare(self, output_dir: str | None = None, *args: Any, **kwargs: Any) -> None:
        """Prepare the dataset as any builder does, and write the records that were left out to `skipped.jsonl`."""
        super().download_and_prepare(output_dir, *args, **kwargs)
        if self.surveys:
            write_skipped(Path(output_dir or self.cache_dir), self.surveys)

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        source = find_source(self.benchmark, self.config.source)
        splits = choose_splits(self.benchmark, self.config.splits)
        edits = EditSurvey(self._layers(), splits)
        self.surveys = [survey_split(self.benchmark, source, split, edits) for split in splits]
        planned = edits.planned()
        self.edits = planned.report
        report_surveys(self.benchmark, self.surveys, self.config.allow_partial)
        # A stream opens its shards one after the other, and would read the records before each of them again.
        shards = 1 if dl_manager.is_streaming else _SHARDS
        return [
            datasets.SplitGenerator(
                name=survey.split,
                gen_kwargs={
                    "source": str(source),
                    "split": survey.split,
                    "ranges": record_ranges(survey.places, shards),
                    "edits": _of_split(planned, survey.split),
                },
            )
            for survey in self.surveys
        ]

    def _layers(self) -> list[EditLayer]:
        folder = self.config.edits
        if folder is None:
            return []
        if not Path(folder, EDITS_FILE).is_file():
            raise BenchmarkError(
                f"`edits` must be a folder with {EDITS_FILE}, got '{folder}'; edit it in `artiagent app --data`"
            )
        return [EditLayer(Path(folder))]

    def _generate_examples(
        self, source: str, split: str, ranges: list[tuple[int, int]], edits: dict[str, SampleEdits]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the rows from the first to the last of `ranges`, which are consecutive, with edits applied."""
        for item in self.benchmark.read(Path(source), split, ranges[0][0], ranges[-1][1]):
            if isinstance(item, BenchmarkImage):
                row: dict[str, Any] | None = image_to_row(item)
                if item.id in edits:
                    row = edited_image(image_to_row(item), edits[item.id])
                if row is not None:
                    yield item.id, row


def _of_split(planned: PlannedEdits, split: str) -> dict[str, SampleEdits]:
    return {sample: edits for (of, sample), edits in planned.samples.items() if of == split}


def record_ranges(places: Sequence[int], most: int) -> list[tuple[int, int]]:
    """
    Divide records into ranges that hold nearly the same number of images.

    Args:
        places (`Sequence[int]`): Numbers of the records that hold images, ascending.
        most (`int`): Largest number of ranges.

    Returns:
        `list[tuple[int, int]]`: First record of each range, and the record to stop before.
    """
    return [
        (places[first], places[end - 1] + 1) if end > first else (0, 0)
        for first, end in consecutive_ranges(len(places), most)
    ]


def consecutive_ranges(count: int, most: int) -> list[tuple[int, int]]:
    """
    Divide `count` records into at most `most` consecutive ranges of nearly equal length.

    Returns:
        `list[tuple[int, int]]`: First record of each range, and the record to stop before; one empty range if `count`
        is 0.
    """
    number = max(1, min(count, most))
    edges = [count * index // number for index in range(number + 1)]
    return list(pairwise(edges))
