"""Single images: one row per image in the schema of the benchmarks, to train and score detectors on pairs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ...schema.image import BENCHMARK_FEATURES
from ...utils.stored_images import stored_size
from .stored_rows import SIDES, image_id


FEATURES = BENCHMARK_FEATURES


def image_rows(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """
    Convert a pair to one row for its clean image and one for its artifact image, in which each artifact is a region
    with a mask.

    Args:
        row (`dict`): A row of `PAIR_FEATURES` as stored.

    Returns:
        `Iterator[dict]`: Two rows of `FEATURES`, the clean image first.
    """
    metadata = {name: row[name] for name in ("pair_id", "source_id", "model", "model_revision")}
    for side in SIDES:
        flawed = side == "flawed"
        width, height = stored_size(row[side])
        yield {
            "id": image_id(row, side),
            "image": row[side],
            "width": width,
            "height": height,
            "has_artifact": flawed,
            "regions": [_region(artifact) for artifact in row["artifacts"]] if flawed else [],
            "caption": row["caption"],
            "explanation": row["explanation"] if flawed else "",
            "metadata": json.dumps(metadata, ensure_ascii=False, sort_keys=True),
        }


def _region(artifact: dict[str, Any]) -> dict[str, Any]:
    return {
        "shape": "mask",
        "bbox": artifact["bbox"],
        "polygons": [],
        "mask": artifact["mask"],
        "class": artifact["type"],
        "caption": artifact["explanation"],
    }
