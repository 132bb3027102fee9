"""Load a prepared benchmark, or a data set of pairs, as images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
from datasets.utils.file_utils import xopen

from ..schema.image import BENCHMARK_FEATURES, BenchmarkImage, row_to_image
from .base import BenchmarkError
from .registry import BENCHMARKS, SCHEMA_HASH, get_benchmark, get_builder
from .source import how_to_fetch


_READ_BATCH = 16


def load_benchmark(name_or_folder: str | Path, split: str | None = None) -> Iterator[BenchmarkImage]:
    """
    The images of a prepared benchmark, one after the other.

    Args:
        name_or_folder (`str` or `Path`):
            A folder written by `artiagent prepare --out` or by `artiagent synthesize`, the name of a benchmark in the
            cache, or the id of a data set on the Hub with the columns of `BENCHMARK_FEATURES`.
        split (`str`, *optional*): By default `"test"`, or the first split if there is none of that name.

    Raises:
        BenchmarkError: it has not been prepared, or has no such split.
        UserError: a folder of pairs holds no completed run.
    """
    name = str(name_or_folder)
    # A prepared folder of pairs keeps its run's record too, but not its `data`.
    if (Path(name) / "run.json").is_file() and (Path(name) / "data").is_dir():
        yield from _open_pairs(name, split)
        return
    splits = _open_splits(name)
    rows = splits[_chosen(name, list(splits), split)]
    # A stream of JSON files does not know its columns.
    if missing := [column for column in BENCHMARK_FEATURES if column not in (rows.features or ())]:
        raise BenchmarkError(f"{name} is no benchmark: it has no column {', '.join(missing)}")
    if isinstance(rows, datasets.IterableDataset):
        yield from (row_to_image(_with_bytes(row)) for row in rows.decode(False))
        return
    # As Arrow tables images stay the files they are.
    for table in rows.with_format("arrow").iter(batch_size=_READ_BATCH):
        yield from map(row_to_image, table.to_pylist())


def _with_bytes(row: dict[str, Any]) -> dict[str, Any]:
    """Puts in the bytes of images that a row names the files of."""
    for image in (row["image"], *(region["mask"] for region in row["regions"])):
        if image and image["bytes"] is None:
            with xopen(image["path"], "rb") as file:
                image["bytes"] = file.read()
    return row


def _open_pairs(folder: str, split: str | None) -> Iterator[BenchmarkImage]:
    # Import torch and diffusers, ten seconds that every process of `load_dataset` would wait for.
    from ..pairs.storage import find_shards, read_rows
    from ..pairs.views.images import image_rows

    _chosen(folder, ["train"], split)
    for row in read_rows(find_shards(folder)):
        yield from map(row_to_image, image_rows(row))


def _chosen(name: str, splits: Sequence[str], split: str | None) -> str:
    if split is None:
        return "test" if "test" in splits else splits[0]
    if split not in splits:
        raise BenchmarkError(f"splits of {name} are {', '.join(splits)}, got '{split}'")
    return split


def _open_splits(name: str) -> dict[str, Any]:
    if Path(name).is_dir() or name not in BENCHMARKS:
        try:
            # Of a set of pairs, the one that has the columns of a benchmark.
            config = "images" if "images" in datasets.get_dataset_config_names(name) else None
            return datasets.load_dataset(name, config, streaming=True)
        except (FileNotFoundError, ConnectionError) as error:
            raise BenchmarkError(
                f"a benchmark must be one of {', '.join(BENCHMARKS)}, a folder that was prepared or synthesized, or a "
                f"data set on the Hub, got '{name}': {error}"
            ) from error
    builder = get_builder(name)(dataset_name=name, hash=SCHEMA_HASH)
    if not builder.info.splits:
        raise BenchmarkError(
            f"{name} has not been prepared; run `artiagent prepare {name} --source DIR`\n\n"
            f"{how_to_fetch(get_benchmark(name))}"
        )
    return builder.as_dataset()
