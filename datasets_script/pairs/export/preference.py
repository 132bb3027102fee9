"""Export to Parquet files of preferences, clean over artifact image, for trainers of diffusion models."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets import Features, Value
from datasets.arrow_writer import ParquetWriter

from ...utils.seeds import derive_seed
from ...utils.stored_images import stored_mask, stored_pixels
from ..storage import ROWS_AT_ONCE
from .common import ExportSettings


_ORIGIN = {"pair_id": Value("string"), "source_id": Value("string")}
_MASK = {"mask": datasets.Image(mode="L")}
_NOISE = {"chosen_noise": Value("binary"), "rejected_noise": Value("binary")}
FEATURES = {
    "chosen": Features(
        {
            **_ORIGIN,
            "prompt": Value("string"),
            "chosen": datasets.Image(mode="RGB"),
            "rejected": datasets.Image(mode="RGB"),
            **_MASK,
            **_NOISE,
        }
    ),
    # Of Pick-a-Pic, which diffusers' and Salesforce's scripts for Diffusion-DPO read: images are bytes, of any format
    # that Pillow opens.
    "pickapic": Features(
        {
            **_ORIGIN,
            "caption": Value("string"),
            "jpg_0": Value("binary"),
            "jpg_1": Value("binary"),
            "label_0": Value("float32"),
            **_MASK,
        }
    ),
}
"""Columns by `preference_columns` of the settings."""


def write_preference(
    folder: Path, rows: Iterable[dict[str, Any]], info: dict[str, Any], settings: ExportSettings
) -> None:
    """
    Write each pair as a row of `data/train-*.parquet`, which `load_dataset(folder, split="train")` reads. Images keep
    their bytes; `mask` is the union of the artifacts' masks, 255 inside.

    With the columns of Pick-a-Pic, `label_0` is 1 where `jpg_0` is the clean image and 0 where it is the other one,
    each for half of the pairs, chosen by seed and `pair_id`.

    Args:
        folder (`Path`): An empty folder.
        rows (iterable of `dict`): Rows of `PAIR_FEATURES` as stored.
        info (`dict`): Not used by this format.
        settings (`ExportSettings`): Columns, seed, and `shard_size`, the number of pairs of a file.
    """
    (folder / "data").mkdir()
    features, remaining = FEATURES[settings.preference_columns], iter(rows)
    as_row = _chosen if settings.preference_columns == "chosen" else _pickapic
    shard = 0
    while batch := next(remaining, None):
        path = folder / "data" / f"train-{shard:05d}.parquet"
        writer = ParquetWriter(features=features, path=str(path), writer_batch_size=ROWS_AT_ONCE)
        writer.write(as_row(batch, settings.seed))
        for row in islice(remaining, settings.shard_size - 1):
            writer.write(as_row(row, settings.seed))
        writer.finalize()
        shard += 1


def _chosen(row: dict[str, Any], seed: int) -> dict[str, Any]:
    return {
        **_origin(row),
        "prompt": row["caption"],
        "chosen": row["clean"],
        "rejected": row["flawed"],
        "mask": _mask(row),
        "chosen_noise": row["clean_noise"],
        "rejected_noise": row["flawed_noise"],
    }


def _pickapic(row: dict[str, Any], seed: int) -> dict[str, Any]:
    sides = ("clean", "flawed") if derive_seed(seed, f"{row['pair_id']}:order") % 2 else ("flawed", "clean")
    return {
        **_origin(row),
        "caption": row["caption"],
        "jpg_0": row[sides[0]]["bytes"],
        "jpg_1": row[sides[1]]["bytes"],
        "label_0": float(sides[0] == "clean"),
        "mask": _mask(row),
    }


def _origin(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in _ORIGIN}


def _mask(row: dict[str, Any]) -> dict[str, Any]:
    return stored_mask(np.logical_or.reduce([stored_pixels(artifact["mask"]) > 127 for artifact in row["artifacts"]]))
