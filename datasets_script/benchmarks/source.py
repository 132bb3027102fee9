"""Location of the published files of a benchmark."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from .base import Benchmark, BenchmarkError


def find_source(benchmark: Benchmark, source: str | None) -> Path:
    """
    Find the folder with the published files, downloading them if `source` is a dataset on the Hub.

    Args:
        benchmark (`Benchmark`): The benchmark.
        source (`str`): A folder, or the id of a dataset on the Hub if the benchmark has `hub_files`.

    Returns:
        `Path`: The folder.

    Raises:
        BenchmarkError: `source` is missing; the message says what to download, from where and under which licence.
    """
    if source is None:
        raise BenchmarkError(
            f"`source` must be a folder with the files of {benchmark.name}, got none\n\n{how_to_fetch(benchmark)}"
        )
    if Path(source).is_dir():
        return Path(source)
    if not benchmark.hub_files or not re.fullmatch(r"\w[\w.-]*/[\w.-]+", str(source)):
        raise BenchmarkError(f"`source` must be a folder, got '{source}'\n\n{how_to_fetch(benchmark)}")
    try:
        return Path(snapshot_download(str(source), repo_type="dataset", allow_patterns=list(benchmark.hub_files)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise BenchmarkError(
            f"`source` must be a folder, or a dataset on the Hub that can be downloaded, got '{source}': {error}\n\n"
            f"{how_to_fetch(benchmark)}"
        ) from error


def how_to_fetch(benchmark: Benchmark) -> str:
    """Describe what to download from where, and under which licence."""
    return f"{benchmark.instructions}\n\nPublished at {benchmark.homepage}; licence: {benchmark.license}."


def choose_splits(benchmark: Benchmark, splits: str | None) -> list[str]:
    """
    Parse a comma-separated list of splits.

    Args:
        benchmark (`Benchmark`): The benchmark.
        splits (`str`): The list; `None` for all splits.

    Raises:
        BenchmarkError: the benchmark has no split of a name in the list.
    """
    names = list(benchmark.splits) if splits is None else [name.strip() for name in splits.split(",")]
    unknown = [name for name in names if name not in benchmark.splits]
    if unknown:
        raise BenchmarkError(
            f"`splits` must be among {', '.join(benchmark.splits)} for {benchmark.name}, got '{unknown[0]}'"
        )
    return names
