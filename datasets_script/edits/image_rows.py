"""Edits applied to images of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..utils.run_lengths import decode_mask
from ..utils.stored_images import stored_mask, stored_pixels
from .records import REJECTED, SampleEdits, Values


_NEW: Mapping[str, Any] = {"shape": "box", "bbox": None, "polygons": [], "mask": None, "class": "", "caption": ""}


def edited_image(row: Mapping[str, Any], edits: SampleEdits) -> dict[str, Any] | None:
    """
    Apply edits to an image of a benchmark. An edited region is a mask where the edit left one, and a box otherwise;
    captions and the explanation stay as they were published, but an image that has no region left is clean and has no
    explanation.

    Args:
        row (`Mapping`): A row of `BENCHMARK_FEATURES` as stored.
        edits (`SampleEdits`): What the edits of this image add up to.

    Returns:
        `dict`, *optional*: A row of the same columns; `None` if the image was rejected.
    """
    if edits.verdict == REJECTED:
        return None
    published = dict(enumerate(row["regions"]))
    numbers = sorted({*published, *edits.regions})
    regions = [_edited(published.get(number), edits.regions.get(number)) for number in numbers]
    kept = [region for region in regions if region is not None]
    if kept == row["regions"]:
        return dict(row)
    edited = {**row, "regions": kept}
    if kept and not row["has_artifact"]:
        edited["has_artifact"] = True
    if not kept and row["regions"]:
        edited |= {"has_artifact": False, "explanation": ""}
    return edited


def _edited(region: Mapping[str, Any] | None, values: Values | None) -> dict[str, Any] | None:
    if values is None:
        return None if region is None else dict(region)
    if values.present is False:
        return None
    edited = {**_NEW, **(region or {})}
    if values.type is not None:
        edited["class"] = values.type
    if values.box is not None and list(values.box) != edited["bbox"]:
        edited |= {"shape": "box", "bbox": list(values.box), "polygons": [], "mask": None}
    if values.mask:
        mask = decode_mask(values.mask)
        if (
            edited["shape"] != "mask"
            or not edited["mask"]
            or not np.array_equal(stored_pixels(edited["mask"]) > 127, mask)
        ):
            edited |= {"shape": "mask", "polygons": [], "mask": stored_mask(mask)}
    return edited
