"""Masks: one row per image with the masks of its artifacts, for segmentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import numpy as np
from datasets import Features, Value

from diffusers_artifact.mapping import ARTIFACT_TYPES

from ...utils.stored_images import stored_mask, stored_pixels, stored_size
from .stored_rows import SIDES, image_id


FEATURES = Features(
    {
        "id": Value("string"),
        "image": datasets.Image(mode="RGB"),
        "mask": datasets.Image(mode="L"),
        **{f"mask_{kind}": datasets.Image(mode="L") for kind in ARTIFACT_TYPES},
    }
)


def mask_rows(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """
    Convert a pair to one row for its clean image and one for its artifact image. `mask` is the union of all artifacts,
    `mask_<type>` of those of a type: 255 inside, 0 outside. The masks of the clean image are empty.

    Args:
        row (`dict`): A row of `PAIR_FEATURES` as stored.

    Returns:
        `Iterator[dict]`: Two rows of `FEATURES`, the clean image first.
    """
    width, height = stored_size(row["clean"])
    empty = stored_mask(np.zeros((height, width), dtype=bool))
    for side in SIDES:
        artifacts = row["artifacts"] if side == "flawed" else []
        by_type = {kind: [a["mask"] for a in artifacts if a["type"] == kind] for kind in ARTIFACT_TYPES}
        yield {
            "id": image_id(row, side),
            "image": row[side],
            "mask": _union([artifact["mask"] for artifact in artifacts], empty),
            **{f"mask_{kind}": _union(masks, empty) for kind, masks in by_type.items()},
        }


def _union(masks: Sequence[dict[str, Any]], empty: dict[str, Any]) -> dict[str, Any]:
    if len(masks) < 2:
        return masks[0] if masks else empty
    return stored_mask(np.any([stored_pixels(mask) > 127 for mask in masks], axis=0))
