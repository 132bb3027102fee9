"""What the formats share."""

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
    Args:
        box_format (`BoxFormat`): How conversations write boxes (sharegpt).
        seed (`int`): Chooses the questions of conversations (sharegpt).
        shard_size (`int`): Pairs a tar (webdataset).
    """

    box_format: BoxFormat = field(default_factory=BoxFormat)
    seed: int = 0
    shard_size: int = 1000


def write_picture(folder: Path, index: int, row: dict[str, Any], side: str) -> str:
    """Writes one half of a pair as it is stored, under `images/`; returns its path relative to `folder`."""
    name = f"images/{index:08d}_{side}.png"
    (folder / name).write_bytes(row[side]["bytes"])
    return name


def encode_rle(picture: dict[str, Any]) -> dict[str, Any]:
    """A stored mask as COCO's compressed run-length encoding, JSON-serialisable."""
    encoded = rle.encode(np.asfortranarray(decode_mask(picture) > 127, dtype=np.uint8))
    return {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}
