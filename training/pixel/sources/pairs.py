"""Pairs of clean and artifact images, of artifacts that were injected or of regions that were corrupted."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from datasets_script.pairs.builder import image_cache
from datasets_script.pairs.image_files import ImageFiles
from datasets_script.pairs.storage import read_rows
from training.pixel.sources.spec import SourceSpec
from training.pixel.sources.units import CLEAN, CORRUPTION, PAIRS, LabelledImage, skipped_row, unit_row
from training.source_files import SourceFiles, find_pair_files


def find_files(spec: SourceSpec) -> SourceFiles:
    """Find the Parquet files of pairs: of a run, of a prepared folder, of a dataset on the Hub, or of a pattern."""
    return find_pair_files(spec.source, spec.revision)


def read_units(spec: SourceSpec, files: SourceFiles) -> Iterator[dict[str, Any]]:
    """
    Yield the pairs as rows of `UNIT_FEATURES`: the artifact image with the union of its masks, and the clean image,
    which is the negative of the same photo and the same generator.
    """
    stored = ImageFiles(image_cache())
    for row in read_rows(_chosen(spec, files)):
        artifacts = [artifact for artifact in row["artifacts"] if not _is_unchanged(artifact)]
        if not artifacts:
            yield skipped_row(row["pair_id"], "no artifact that changed the image")
            continue
        is_corruption = any(artifact["tool"] == CORRUPTION for artifact in artifacts)
        label = np.logical_or.reduce([_mask(artifact) for artifact in artifacts])
        halves = (
            LabelledImage(_in_file(row["flawed"], stored), label, CORRUPTION if is_corruption else PAIRS),
            LabelledImage(_in_file(row["clean"], stored), None, CLEAN),
        )
        first = artifacts[0]
        yield unit_row(row["pair_id"], row["source_id"], halves, first["part"] or first["entity"])


def _chosen(spec: SourceSpec, files: SourceFiles) -> list[str]:
    return files.splits.get(spec.split, []) if spec.split else files.all()


def _is_unchanged(artifact: Mapping[str, Any]) -> bool:
    """Return whether curation has flagged a corrupted region as one that came back without a visible flaw."""
    return bool(json.loads(artifact["scores"]).get("unchanged"))


def _mask(artifact: Mapping[str, Any]) -> np.ndarray:
    with Image.open(io.BytesIO(artifact["mask"]["bytes"])) as image:
        return np.asarray(image.convert("L")) > 127


def _in_file(image: Mapping[str, Any], stored: ImageFiles) -> dict[str, Any]:
    """Store an image in the cache of pairs, and refer to it by its path."""
    return {"bytes": image["bytes"], "path": stored.add(image["bytes"])}
