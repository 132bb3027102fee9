"""Benchmarks as datasets: from the published files to rows of `BENCHMARK_FEATURES`, and back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import datasets
from datasets import Features

from ..schema.image import BENCHMARK_FEATURES, BenchmarkImage, image_to_row
from .base import Benchmark
from .source import choose_splits, find_source
from .survey import Survey, report_surveys, survey_split, write_skipped


logger = datasets.utils.logging.get_logger(__name__)


# More shards than processes that read: each is a range of a split's records, in their order.
_SHARDS = 32


@dataclass
class BenchmarkConfig(datasets.BuilderConfig):
    """
    Args:
        source (`str`, *optional*): Folder with the published files, or the id of a dataset on the Hub.
        splits (`str`, *optional*): Comma-separated, the splits to read; all by default.
        allow_partial (`bool`, *optional*, defaults to `False`): Whether to go on where the files contradict the
            published counts.
    """

    source: str | None = None
    splits: str | None = None
    allow_partial: bool = False

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: Features | None = None) -> str:
        """Names the folder of the cache: a relative source is another folder elsewhere."""
        given = {name: value for name, value in config_kwargs.items() if value not in (None, {}, False)}
        if "source" in given and Path(given["source"]).is_dir():
            given["source"] = os.path.abspath(given["source"])
        return super().create_config_id(given, custom_features)


class BenchmarkBuilder(datasets.GeneratorBasedBuilder):
    """
    A benchmark as a builder of `datasets`; a subclass names its `benchmark`. The source is read twice: once to count
    and check, before anything is written, and once to write.

    Attributes:
        benchmark (`Benchmark`): Reads the published files.
        surveys (`list[Survey]`): What the splits hold; empty until they have been read.
    """

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIG_CLASS = BenchmarkConfig
    # Images are bytes of up to megabytes.
    DEFAULT_WRITER_BATCH_SIZE = 100

    benchmark: ClassVar[Benchmark]

    def __init__(self, *args: Any, **kwargs: Any):
        self.surveys: list[Survey] = []
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
        """As every builder's; writes `skipped.jsonl` beside the data, a line for each record that was left out."""
        super().download_and_prepare(output_dir, *args, **kwargs)
        if self.surveys:
            write_skipped(Path(output_dir or self.cache_dir), self.surveys)

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        source = find_source(self.benchmark, self.config.source)
        splits = choose_splits(self.benchmark, self.config.splits)
        self.surveys = [survey_split(self.benchmark, source, split) for split in splits]
        report_surveys(self.benchmark, self.surveys, self.config.allow_partial)
        # A stream opens its shards one after the other and would read what comes before each again.
        shards = 1 if dl_manager.is_streaming else _SHARDS
        return [
            datasets.SplitGenerator(
                name=survey.split,
                gen_kwargs={
                    "source": str(source),
                    "split": survey.split,
                    "ranges": record_ranges(survey.places, shards),
                },
            )
            for survey in self.surveys
        ]

    def _generate_examples(
        self, source: str, split: str, ranges: list[tuple[int, int]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """The rows from the first of `ranges` to the last: a process is given neighbours."""
        for item in self.benchmark.read(Path(source), split, ranges[0][0], ranges[-1][1]):
            if isinstance(item, BenchmarkImage):
                yield item.id, image_to_row(item)


def record_ranges(places: Sequence[int], most: int) -> list[tuple[int, int]]:
    """Records of images in at most `most` ranges (first, end) that hold nearly equally many images."""
    return [
        (places[first], places[end - 1] + 1) if end > first else (0, 0)
        for first, end in consecutive_ranges(len(places), most)
    ]


def consecutive_ranges(count: int, most: int) -> list[tuple[int, int]]:
    """`count` records in at most `most` ranges (first, end) of nearly equal lengths; one empty range for none."""
    number = max(1, min(count, most))
    edges = [count * index // number for index in range(number + 1)]
    return list(pairwise(edges))
