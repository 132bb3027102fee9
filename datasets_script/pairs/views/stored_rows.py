"""Reading of stored rows, whose images are `{"bytes", "path"}`."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from ...schema.features import current_artifact, row_to_artifact
from ...schema.pair import Artifact
from ...schema.pair_id import image_id as compose_image_id


SIDES = ("clean", "flawed")


def image_id(row: dict[str, Any], side: str) -> str:
    """Compose the id of an image of a pair, `"<pair_id>#clean"` or `"<pair_id>#flawed"`."""
    return compose_image_id(row["pair_id"], side)


def image_size(stored: dict[str, Any]) -> tuple[int, int]:
    """Read the width and height of a stored image, px, from its header."""
    with Image.open(io.BytesIO(stored["bytes"])) as image:
        return image.size


def read_artifacts(row: dict[str, Any]) -> list[Artifact]:
    """Read the artifacts of a row of `PAIR_FEATURES` as stored."""
    grid = (row["grid"][0], row["grid"][1])
    return [row_to_artifact(_with_masks(current_artifact(item)), grid) for item in row["artifacts"]]


def _with_masks(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, **{name: decode_mask(item[name]) for name in ("mask", "part_mask")}}


def decode_mask(stored: dict[str, Any]) -> np.ndarray:
    """Decode a stored mask to grey levels, `uint8` of shape `(height, width)`."""
    with Image.open(io.BytesIO(stored["bytes"])) as image:
        return np.asarray(image)
