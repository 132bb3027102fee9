"""Find the published files of a benchmark, or say what to fetch."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from .base import Benchmark, BenchmarkError


def find_source(benchmark: Benchmark, source: str | None) -> Path:
    """
    The folder with the published files.

    Raises:
        BenchmarkError: there is none; the message says what to fetch, from where and under which licence.
    """
    if source is None:
        raise BenchmarkError(f"{benchmark.name} needs `source`, a folder with its files\n\n{how_to_fetch(benchmark)}")
    if Path(source).is_dir():
        return Path(source)
    if not benchmark.hub_files or not re.fullmatch(r"\w[\w.-]*/[\w.-]+", str(source)):
        raise BenchmarkError(f"source must be a folder, got '{source}'\n\n{how_to_fetch(benchmark)}")
    try:
        return Path(snapshot_download(str(source), repo_type="dataset", allow_patterns=list(benchmark.hub_files)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise BenchmarkError(
            f"source must be a folder, or a dataset on the Hub that can be fetched, got '{source}': {error}\n\n"
            f"{how_to_fetch(benchmark)}"
        ) from error


def how_to_fetch(benchmark: Benchmark) -> str:
    """What to fetch from where, and under which licence."""
    return f"{benchmark.instructions}\n\nPublished at {benchmark.homepage}; licence: {benchmark.license}."


def choose_splits(benchmark: Benchmark, splits: str | None) -> list[str]:
    """
    The splits named in a comma-separated list, or all.

    Raises:
        BenchmarkError: the benchmark has no split of that name.
    """
    names = list(benchmark.splits) if splits is None else [name.strip() for name in splits.split(",")]
    unknown = [name for name in names if name not in benchmark.splits]
    if unknown:
        raise BenchmarkError(f"splits of {benchmark.name} are {', '.join(benchmark.splits)}, got '{unknown[0]}'")
    return names
