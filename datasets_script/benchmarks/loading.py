"""Loading of prepared benchmarks and datasets of pairs as images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
from datasets.utils.file_utils import xopen

from ..schema.image import BENCHMARK_FEATURES, BenchmarkImage, row_to_image
from ..schema.run_record import RUN_FILE
from .base import BenchmarkError
from .registry import BENCHMARKS, SCHEMA_HASH, get_benchmark, get_builder
from .source import how_to_fetch


_READ_BATCH = 16


def load_benchmark(name_or_folder: str | Path, split: str | None = None) -> Iterator[BenchmarkImage]:
    """
    Load the images of a prepared benchmark one by one.

    Args:
        name_or_folder (`str` or `Path`):
            A folder written by `artiagent prepare --out` or by `artiagent synthesize`, the name of a benchmark in the
            cache, or the id of a dataset on the Hub with the columns of `BENCHMARK_FEATURES`.
        split (`str`, *optional*): Name of the split; by default `"test"`, or the first split if there is no such.

    Returns:
        `Iterator[BenchmarkImage]`: The images in their order.

    Raises:
        BenchmarkError: the benchmark has not been prepared, or has no such split.
        UserError: a folder of pairs does not hold a completed run.
    """
    yield from map(row_to_image, _rows(str(name_or_folder), split, list(BENCHMARK_FEATURES)))


def load_sizes(name_or_folder: str | Path, split: str | None = None) -> dict[str, tuple[int, int]]:
    """
    Load the sizes of the images of a prepared benchmark, without pixels, masks and texts.

    Args:
        name_or_folder, split: As in [`load_benchmark`].

    Returns:
        `dict[str, tuple[int, int]]`: Width and height of each image, px, by id and in their order.

    Raises:
        BenchmarkError, UserError: as in [`load_benchmark`].
    """
    rows = _rows(str(name_or_folder), split, ["id", "width", "height"])
    return {row["id"]: (row["width"], row["height"]) for row in rows}


def _rows(name: str, split: str | None, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Yield rows with some columns of `BENCHMARK_FEATURES`, images as `{"bytes", "path"}`."""
    # A prepared folder of pairs holds run.json too, but no data/.
    if (Path(name) / RUN_FILE).is_file() and (Path(name) / "data").is_dir():
        yield from _rows_of_pairs(name, split, columns)
        return
    splits = _open_splits(name)
    chosen = _chosen(name, list(splits), split)
    rows = splits[chosen]
    # `features` is None for a stream of JSON files.
    if missing := [column for column in BENCHMARK_FEATURES if column not in (rows.features or ())]:
        raise BenchmarkError(
            f"`name_or_folder` must have the columns of a benchmark, got '{name}' without {', '.join(missing)}"
        )
    if isinstance(rows, datasets.IterableDataset):
        if len(columns) < len(BENCHMARK_FEATURES) and rows.info.builder_name == "parquet":
            rows = _open_stream(name, columns=columns)[chosen]
        yield from (_with_bytes(row) for row in rows.select_columns(columns).decode(False))
        return
    # In Arrow tables images stay encoded.
    for table in rows.select_columns(columns).with_format("arrow").iter(batch_size=_READ_BATCH):
        yield from table.to_pylist()


def _with_bytes(row: dict[str, Any]) -> dict[str, Any]:
    """Load the bytes of images to which a row refers by file name."""
    for image in (row.get("image"), *(region["mask"] for region in row.get("regions", ()))):
        if image and image["bytes"] is None:
            with xopen(image["path"], "rb") as file:
                image["bytes"] = file.read()
    return row


def _rows_of_pairs(folder: str, split: str | None, columns: list[str]) -> Iterator[dict[str, Any]]:
    # Imported here because they import torch, which benchmarks do not need.
    from ..pairs.storage import find_shards, read_rows
    from ..pairs.views.images import image_rows

    _chosen(folder, ["train"], split)
    for row in read_rows(find_shards(folder)):
        yield from ({name: image[name] for name in columns} for image in image_rows(row))


def _chosen(name: str, splits: Sequence[str], split: str | None) -> str:
    if split is None:
        return "test" if "test" in splits else splits[0]
    if split not in splits:
        raise BenchmarkError(f"`split` must be one of {', '.join(splits)} for {name}, got '{split}'")
    return split


def _open_stream(name: str, **options: Any) -> dict[str, Any]:
    # The configuration of a dataset of pairs that has the columns of a benchmark.
    config = "images" if "images" in datasets.get_dataset_config_names(name) else None
    try:
        # With `columns` among the options, only these columns of Parquet files are read.
        return datasets.load_dataset(name, config, streaming=True, **options)
    except ValueError:
        if not options:
            raise
        return _open_stream(name)


def _open_splits(name: str) -> dict[str, Any]:
    if Path(name).is_dir() or name not in BENCHMARKS:
        try:
            return _open_stream(name)
        except (FileNotFoundError, ConnectionError) as error:
            raise BenchmarkError(
                f"`name_or_folder` must be one of {', '.join(BENCHMARKS)}, a folder that was prepared or synthesized, "
                f"or a dataset on the Hub, got '{name}': {error}"
            ) from error
    builder = get_builder(name)(dataset_name=name, hash=SCHEMA_HASH)
    if not builder.info.splits:
        raise BenchmarkError(
            f"`name_or_folder` must be prepared first, got '{name}'; run `artiagent prepare {name} --source DIR`\n\n"
            f"{how_to_fetch(get_benchmark(name))}"
        )
    return builder.as_dataset()
