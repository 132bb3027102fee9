"""Reading of stored rows, whose images are `{"bytes", "path"}`."""

from __future__ import annotations

from typing import Any

from ...schema.features import current_artifact, row_to_artifact
from ...schema.pair import Artifact
from ...schema.pair_id import image_id as compose_image_id
from ...utils.stored_images import stored_pixels


SIDES = ("clean", "flawed")


def image_id(row: dict[str, Any], side: str) -> str:
    """Compose the id of an image of a pair, `"<pair_id>#clean"` or `"<pair_id>#flawed"`."""
    return compose_image_id(row["pair_id"], side)


def read_artifacts(row: dict[str, Any]) -> list[Artifact]:
    """Read the artifacts of a row of `PAIR_FEATURES` as stored."""
    grid = (row["grid"][0], row["grid"][1])
    return [row_to_artifact(_with_masks(current_artifact(item)), grid) for item in row["artifacts"]]


def _with_masks(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, **{name: stored_pixels(item[name]) for name in ("mask", "part_mask")}}
