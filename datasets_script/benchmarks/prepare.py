"""Preparing a dataset: in the cache under its public name, or as a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets

from ..pairs.folders import whole_folder
from .card import write_benchmark_card
from .registry import SCHEMA_HASH, get_benchmark, get_builder
from .survey import SKIPPED_FILE


def prepare(
    name: str, source: str, config_name: str | None = None, num_proc: int | None = None, **options: Any
) -> datasets.GeneratorBasedBuilder:
    """
    Prepares a dataset under its public name in the cache of `datasets`, replacing what was prepared before. From then
    on `load_dataset(name)` gives it, here and in other processes, without this package.

    Args:
        name (`str`): One of `MODULES`.
        source (`str`): Folder with the published files.
        config_name (`str`, *optional*): Of a dataset that has several.
        num_proc (`int`, *optional*): Processes that write.
        options: Further fields of the builder's configuration, such as `splits` and `allow_partial`.

    Returns:
        `datasets.GeneratorBasedBuilder`: With `info` and, of a benchmark, `surveys`.

    Raises:
        BenchmarkError: the source is missing or not as published.
    """
    builder = get_builder(name)(dataset_name=name, config_name=config_name, source=source, **options)
    folder = cache_folder(name, builder.config.name)
    builder.download_and_prepare(str(folder), download_mode="force_redownload", num_proc=num_proc)
    return builder


def cache_folder(name: str, config_name: str = "default") -> Path:
    """
    Where `load_dataset(name)` looks for what was prepared: the configuration's name stands alone there, while a
    builder of its own accord adds its options.
    """
    version = str(get_builder(name).VERSION)
    return Path(datasets.config.HF_DATASETS_CACHE, name, config_name, version, SCHEMA_HASH)


def prepare_folder(
    name: str, source: str, out: Path, num_proc: int | None = None, **options: Any
) -> datasets.GeneratorBasedBuilder:
    """
    Writes a benchmark as a folder of Parquet files with a card, which `load_dataset` reads and which can be pushed to
    the Hub as it is; whole or not at all.

    Args:
        out (`Path`): The folder; must not exist. Other arguments as in [`prepare`].

    Raises:
        BenchmarkError: the source is missing or not as published.
        FileExistsError: `out` exists.
    """
    with whole_folder(out, options) as folder:
        builder = get_builder(name)(cache_dir=str(folder / "cache"), dataset_name=name, source=source, **options)
        builder.download_and_prepare(str(folder / "data"), file_format="parquet", num_proc=num_proc)
        (folder / "data" / SKIPPED_FILE).replace(folder / SKIPPED_FILE)
        write_benchmark_card(folder, get_benchmark(name), builder.surveys)
    return builder
