"""Export to COCO's object detection format: `images/` and `annotations.json`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pycocotools import mask as rle

from diffusers_artifact.mapping import ARTIFACT_TYPES

from ...utils.stored_images import stored_size
from ..views.stored_rows import SIDES
from .common import ExportSettings, encode_rle, write_image


_CATEGORY_IDS = {kind: number for number, kind in enumerate(ARTIFACT_TYPES, start=1)}


def write_coco(folder: Path, rows: Iterable[dict[str, Any]], info: dict[str, Any], settings: ExportSettings) -> None:
    """
    Write both images of each pair; clean images have no annotations. Categories are artifact types, and segmentations
    are run-length encodings of the masks.

    Args:
        folder (`Path`): An empty folder.
        rows (iterable of `dict`): Rows of `PAIR_FEATURES` as stored.
        info (`dict`): Record of the export, stored in `info` of the annotations.
        settings (`ExportSettings`): Not used by this format.
    """
    (folder / "images").mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, row in enumerate(rows):
        for side in SIDES:
            width, height = stored_size(row[side])
            images.append(
                {
                    "id": len(images) + 1,
                    # Relative to `images/`, the folder that detectors take as their image root.
                    "file_name": Path(write_image(folder, index, row, side)).name,
                    "width": width,
                    "height": height,
                    "license": 1,
                    "pair_id": row["pair_id"],
                    "source_id": row["source_id"],
                    "side": side,
                }
            )
        annotations += [
            _annotation(artifact, len(annotations) + offset, images[-1]["id"])
            for offset, artifact in enumerate(row["artifacts"], start=1)
        ]
    content = {
        "info": {"description": "Pairs of clean and artifact images", **info},
        "licenses": [{"id": 1, "name": name, "url": ""} for name in [info["license"]]],
        "categories": [
            {"id": number, "name": kind, "supercategory": "artifact"} for kind, number in _CATEGORY_IDS.items()
        ],
        "images": images,
        "annotations": annotations,
    }
    (folder / "annotations.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _annotation(artifact: dict[str, Any], number: int, image: int) -> dict[str, Any]:
    segmentation = encode_rle(artifact["mask"])
    x_min, y_min, x_max, y_max = artifact["bbox"]
    return {
        "id": number,
        "image_id": image,
        "category_id": _CATEGORY_IDS[artifact["type"]],
        "bbox": [x_min, y_min, x_max - x_min, y_max - y_min],
        "area": int(rle.area(segmentation)),
        "segmentation": segmentation,
        "iscrowd": 0,
        "label": artifact["label"],
        "caption": artifact["explanation"],
    }
