"""Agreement of labels with what visibly changed, for the report."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from diffusers_artifact.mapping import ARTIFACT_TYPES
from diffusers_artifact.tools import bbox_of_mask
from diffusers_artifact.visible_change import label_masks

from ...schema.boxes import Box
from ...utils.stored_images import stored_pixels
from ..views.stored_rows import read_artifacts
from .statistics import SEED, Agreement, Statistics


# Pairs that are opened. The standard error of a mean IoU over so many is at most .04, mostly under .02.
_PAIRS = 200


def label_agreement(out: Path, statistics: Statistics) -> dict[str, list[Agreement]]:
    """
    Compare the labels of sampled pairs with the visible change between their images.

    Args:
        out (`Path`): Folder of the dataset that `statistics` describes.
        statistics (`Statistics`): Statistics whose sample to draw from.

    Returns:
        `dict[str, list[Agreement]]`: By artifact type. An artifact without visible change has an IoU of 0.
    """
    found: dict[str, list[Agreement]] = defaultdict(list)
    for row in _rows(out, statistics):
        artifacts = read_artifacts(row)
        mappings = [artifact.mapping for artifact in artifacts]
        changes = label_masks(stored_pixels(row["clean"]), stored_pixels(row["flawed"]), mappings)
        for artifact, change in zip(artifacts, changes, strict=True):
            union = (artifact.mask | change).sum()
            found[artifact.type].append(
                Agreement(
                    _box_iou(artifact.bbox, bbox_of_mask(change)) if change.any() else 0.0,
                    float((artifact.mask & change).sum() / max(1, union)),
                )
            )
    return {kind: found[kind] for kind in ARTIFACT_TYPES if found[kind]}


def _rows(out: Path, statistics: Statistics) -> Iterator[dict[str, Any]]:
    sample = random.Random(SEED).sample(statistics.sample, min(_PAIRS, len(statistics.sample)))
    wanted: dict[str, set[int]] = defaultdict(set)
    for pair in sample:
        wanted[pair.place[0]].add(pair.place[1])
    for name, numbers in sorted(wanted.items()):
        with pq.ParquetFile(out / "data" / name) as file:
            batches = file.iter_batches(batch_size=1, columns=["clean", "flawed", "grid", "artifacts"])
            for number, batch in enumerate(batches):
                if number in numbers:
                    yield batch.to_pylist()[0]


def _box_iou(first: Box, second: Box) -> float:
    (left, top), (right, bottom) = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    common = max(0.0, right - left) * max(0.0, bottom - top)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return float(common / (sum(areas) - common))
