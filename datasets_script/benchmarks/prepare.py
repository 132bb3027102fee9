"""Preparation of datasets, in the cache under their public names or as folders."""

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
    Prepare a dataset under its public name in the cache of `datasets`, replacing an earlier preparation. Afterwards
    `load_dataset(name)` loads it in any process, without this package.

    Args:
        name (`str`): Name of the dataset, one of `MODULES`.
        source (`str`): Folder with the published files.
        config_name (`str`, *optional*): Configuration, for a dataset that has several.
        num_proc (`int`, *optional*): Number of processes that write; 1 by default.
        options: Further fields of the builder's configuration, such as `splits` and `allow_partial`.

    Returns:
        `datasets.GeneratorBasedBuilder`: The builder, with `info` and, for a benchmark, `surveys`.

    Raises:
        BenchmarkError: `source` is missing or differs from the publication.
    """
    builder = get_builder(name)(dataset_name=name, config_name=config_name, source=source, **options)
    folder = cache_folder(name, builder.config.name)
    builder.download_and_prepare(str(folder), download_mode="force_redownload", num_proc=num_proc)
    return builder


def cache_folder(name: str, config_name: str = "default") -> Path:
    """
    Return the folder in which `load_dataset(name)` looks for a prepared dataset. It is named by the configuration
    alone, while a builder on its own would add its options to the name.

    Args:
        name (`str`): Name of the dataset.
        config_name (`str`, *optional*, defaults to `"default"`): Name of the configuration.
    """
    version = str(get_builder(name).VERSION)
    return Path(datasets.config.HF_DATASETS_CACHE, name, config_name, version, SCHEMA_HASH)


def prepare_folder(
    name: str, source: str, out: Path, num_proc: int | None = None, **options: Any
) -> datasets.GeneratorBasedBuilder:
    """
    Write a benchmark to a folder of Parquet files with a card, atomically. `load_dataset` reads the folder, and it can
    be pushed to the Hub as it is.

    Args:
        name (`str`): Name of the benchmark.
        source (`str`): Folder with the published files.
        out (`Path`): The folder to write; must not exist.
        num_proc (`int`, *optional*): Number of processes that write; 1 by default.
        options: Further fields of the builder's configuration.

    Returns:
        `datasets.GeneratorBasedBuilder`: The builder, with `info` and `surveys`.

    Raises:
        BenchmarkError: `source` is missing or differs from the publication.
        FileExistsError: `out` exists.
    """
    edits: dict[str, Any] = {}
    with whole_folder(out, options, edits) as folder:
        builder = get_builder(name)(cache_dir=str(folder / "cache"), dataset_name=name, source=source, **options)
        builder.download_and_prepare(str(folder / "data"), file_format="parquet", num_proc=num_proc)
        (folder / "data" / SKIPPED_FILE).replace(folder / SKIPPED_FILE)
        write_benchmark_card(folder, get_benchmark(name), builder.surveys, builder.edits.as_section())
        edits.update(builder.edits.as_dict())
    return builder
