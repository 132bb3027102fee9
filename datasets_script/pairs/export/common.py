"""Settings and helpers that the export formats share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from ...vlm.conventions import BoxFormat
from ..views.stored_rows import decode_mask


INFO_FILE = "info.json"


@dataclass(frozen=True)
class ExportSettings:
    """
    Settings of an export.

    Args:
        box_format (`BoxFormat`, *optional*): Convention of the boxes in conversations (sharegpt); pixels by default.
        seed (`int`, *optional*, defaults to 0): Chooses the questions of conversations (sharegpt).
        shard_size (`int`, *optional*, defaults to 1000): Number of pairs per tar file (webdataset).
    """

    box_format: BoxFormat = field(default_factory=BoxFormat)
    seed: int = 0
    shard_size: int = 1000


def write_image(folder: Path, index: int, row: dict[str, Any], side: str) -> str:
    """
    Write one image of a pair under `images/`, byte for byte.

    Args:
        folder (`Path`): Folder of the export.
        index (`int`): Number of the pair, for the file name.
        row (`dict`): A row of `PAIR_FEATURES` as stored.
        side (`str`): Column of the image, `"clean"` or `"flawed"`.

    Returns:
        `str`: Path of the file, relative to `folder`.
    """
    name = f"images/{index:08d}_{side}.png"
    (folder / name).write_bytes(row[side]["bytes"])
    return name


def encode_rle(mask: dict[str, Any]) -> dict[str, Any]:
    """Encode a stored mask as COCO's compressed run-length encoding, JSON-serialisable."""
    encoded = rle.encode(np.asfortranarray(decode_mask(mask) > 127, dtype=np.uint8))
    return {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}
