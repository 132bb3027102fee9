"""Digests of what a person sees of a sample: an edit holds for these images and regions alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..utils.stored_images import stored_pixels


def pair_digest(row: Mapping[str, Any]) -> str:
    """
    Compute the digest of a pair: both images as stored, and type, box and pixels of each artifact.

    Args:
        row (`Mapping`): A row of `PAIR_FEATURES` as stored.
    """
    artifacts = row["artifacts"]
    regions = [[one["type"], [float(side) for side in one["bbox"]], _pixels(one["mask"])] for one in artifacts]
    return _digest((row["clean"]["bytes"], row["flawed"]["bytes"]), regions)


def image_digest(row: Mapping[str, Any]) -> str:
    """
    Compute the digest of an image of a benchmark: the image as stored, and class, box, polygons and pixels of each
    region.

    Args:
        row (`Mapping`): A row of `BENCHMARK_FEATURES` as stored.
    """
    regions = [
        [one["class"], one["bbox"] and [float(side) for side in one["bbox"]], one["polygons"], _pixels(one["mask"])]
        for one in row["regions"]
    ]
    return _digest((row["image"]["bytes"],), regions)


def _pixels(stored: Mapping[str, Any] | None) -> str:
    """Hash the pixels of a mask, not its file: another version of Pillow may compress them otherwise."""
    if stored is None:
        return ""
    pixels = np.ascontiguousarray(stored_pixels(stored))
    return hashlib.sha256(pixels.tobytes() + str(pixels.shape).encode()).hexdigest()[:16]


def _digest(images: Iterable[bytes], regions: list[Any]) -> str:
    digest = hashlib.sha256(json.dumps(regions, sort_keys=True).encode())
    for content in images:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]
