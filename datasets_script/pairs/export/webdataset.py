"""
Export to WebDataset: tar files of `<key>.clean.png`, `<key>.flawed.png`, `<key>.source.png` and `<key>.json`, and
`<key>.clean_noise.npy` and `<key>.flawed_noise.npy` of runs that store noise.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ...schema.features import NOISE_COLUMNS
from .common import ExportSettings, encode_rle


_IMAGES = ("source", "clean", "flawed")


def write_webdataset(
    folder: Path, rows: Iterable[dict[str, Any]], info: dict[str, Any], settings: ExportSettings
) -> None:
    """
    Write each pair as a sample. Its JSON holds all columns except images and noise; masks are in COCO's run-length
    encoding.

    Args:
        folder (`Path`): An empty folder.
        rows (iterable of `dict`): Rows of `PAIR_FEATURES` as stored.
        info (`dict`): Not used by this format.
        settings (`ExportSettings`): `shard_size` is the number of pairs per tar file.
    """
    numbered = enumerate(rows)
    shard = 0
    while batch := next(numbered, None):
        with tarfile.open(folder / f"pairs-{shard:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            _add_sample(tar, *batch)
            for index, row in islice(numbered, settings.shard_size - 1):
                _add_sample(tar, index, row)
        shard += 1


def _add_sample(tar: tarfile.TarFile, index: int, row: dict[str, Any]) -> None:
    for extension, content in _members(row):
        # Without times and owners, so that equal pairs give equal tar files.
        member = tarfile.TarInfo(f"{index:08d}.{extension}")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))


def _members(row: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    for name in _IMAGES:
        yield f"{name}.png", row[name]["bytes"]
    for name in NOISE_COLUMNS:
        if row[name] is not None:
            yield f"{name}.npy", row[name]
    record = {name: value for name, value in row.items() if name not in (*_IMAGES, *NOISE_COLUMNS)}
    record["transform"] = json.loads(row["transform"])
    record["artifacts"] = [_artifact(artifact) for artifact in row["artifacts"]]
    yield "json", json.dumps(record, ensure_ascii=False).encode()


def _artifact(artifact: dict[str, Any]) -> dict[str, Any]:
    record = {name: value for name, value in artifact.items() if name not in ("mask", "part_mask")}
    return record | {
        "scores": json.loads(artifact["scores"]),
        "parameters": json.loads(artifact["parameters"]),
        "segmentation": encode_rle(artifact["mask"]),
        "part_segmentation": encode_rle(artifact["part_mask"]),
    }
