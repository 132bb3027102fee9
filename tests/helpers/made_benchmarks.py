"""Prepared benchmarks of made images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset

from datasets_script.schema.image import BENCHMARK_FEATURES, BenchmarkImage, image_to_row


def write_benchmark(folder: Path, images: Sequence[BenchmarkImage]) -> Path:
    """Write images as the test split of a prepared benchmark, and return its folder."""
    rows = Dataset.from_list([image_to_row(image) for image in images], features=BENCHMARK_FEATURES)
    (folder / "data").mkdir(parents=True)
    rows.to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    return folder
