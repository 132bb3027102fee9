"""Prepared benchmarks and sets of pseudo labels: images with regions that people or a detector have marked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from datasets_script.benchmarks.base import BenchmarkError
from datasets_script.benchmarks.loading import load_benchmark
from datasets_script.benchmarks.prepare import cache_folder
from datasets_script.schema.image import BenchmarkImage, Region
from datasets_script.schema.run_record import RUN_FILE
from datasets_script.utils.errors import UserError
from evaluate_metrics.functional.regions import region_mask
from training.pixel.pseudo_labels import PSEUDO_FILE
from training.pixel.sources.spec import SourceSpec
from training.pixel.sources.units import CLEAN, HUMAN, PSEUDO, LabelledImage, skipped_row, unit_row
from training.source_files import SourceFiles, locate


# Two of three annotators, and a bit less for levels that were rounded (Menn et al. §4.1).
_MAJORITY = 0.6


def find_files(spec: SourceSpec) -> SourceFiles:
    """
    Find the files of a benchmark: in the cache by its name, in a folder, or of a dataset on the Hub.

    Raises:
        UserError: It cannot be opened, is a run of pairs, or pseudo labels that are not complete.
    """
    folder, public_name, commit = locate(spec.source, spec.revision)
    # What was downloaded is read, as another revision may be on the Hub by now.
    opened = str(folder) if folder.exists() else spec.source
    _check_folder(folder, spec.source)
    try:
        next(iter(load_benchmark(opened, spec.split)), None)
    except (BenchmarkError, OSError) as error:
        raise UserError(str(error)) from error
    if not folder.exists():
        folder, public_name = cache_folder(spec.source), spec.source
    paths = sorted(str(path.absolute()) for path in folder.rglob("*") if path.suffix in (".parquet", ".arrow"))
    return SourceFiles(public_name, {spec.split or "all": paths}, opened, commit)


def read_units(spec: SourceSpec, files: SourceFiles) -> Iterator[dict[str, Any]]:
    """
    Yield the images as rows of `UNIT_FEATURES`, or the reason why an image has no label. Boxes alone are none: they
    say where to look, not which pixels are wrong.
    """
    for image in load_benchmark(files.opened, spec.split):
        label, reason = _label(image, spec.labels)
        if reason:
            yield skipped_row(image.id, reason)
            continue
        provenance = HUMAN if label is not None else CLEAN
        if image.metadata.get("provenance") == PSEUDO:
            provenance = PSEUDO
        item = LabelledImage({"bytes": image.image, "path": None}, label, provenance)
        category = str(image.metadata.get("category", "") or image.metadata.get("task", ""))
        yield unit_row(image.id, image.id, [item], category)


def _check_folder(folder: Path, source: str) -> None:
    if (folder / RUN_FILE).is_file():
        # Its images one by one would count as labelled by people, and halves of a pair could be held out apart.
        raise UserError(f"--sources must name pairs as kind 'pairs', got '{source}' as 'benchmark'")
    record = folder / PSEUDO_FILE
    if record.is_file() and json.loads(record.read_text(encoding="utf-8")).get("status") != "complete":
        raise UserError(
            f"--sources must name complete pseudo labels, got '{source}', which was interrupted; rerun "
            "`artiagent pseudo-label` to complete it"
        )


def _label(image: BenchmarkImage, labels: str) -> tuple[np.ndarray | None, str]:
    """Return the label of an image, `None` if it is clean, and why it has none."""
    if labels == "majority" and not image.metadata.get("three_annotators") and _has_heat_map(image):
        return None, "not of three annotators"
    marked = [region for region in image.regions if region.shape != "box"]
    if not marked:
        if image.regions or image.has_artifact:
            return None, "an artifact without a mask"
        return None, "" if image.has_artifact is False else "not said whether it has an artifact"
    label = np.maximum.reduce([_values(region, image.size) for region in marked])
    if labels == "soft":
        return label, ""
    return label >= (_MAJORITY if labels == "majority" else 0.5), ""


def _has_heat_map(image: BenchmarkImage) -> bool:
    return any(region.shape == "heat_map" for region in image.regions)


def _values(region: Region, size: tuple[int, int]) -> np.ndarray:
    if region.mask is not None:
        return region.mask.astype(np.float32)
    return region_mask(list(region.polygons), size).astype(np.float32)
