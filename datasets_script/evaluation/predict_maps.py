"""Prediction with a pixel detector: find the artifacts of every image of a benchmark, and record them in files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from evaluate_metrics.functional.versions import versions

from ..detection.pixel.detector import PixelDetector
from ..schema.detection import Detection
from ..schema.image import BenchmarkImage
from ..schema.prediction import Prediction
from ..utils.files import replacing
from ..utils.stored_images import stored_map, stored_mask
from .predict import only_writer, open_image
from .prediction_files import append_record, begin_predictions


# A map whose stored levels are all 0 or 1 cannot be told from a mask; lower values are written as 0, a change of 3e-5.
_LEAST = 2 / 65535


def predict_maps(
    detector: PixelDetector, images: Iterable[BenchmarkImage], benchmark: str, split: str | None, out: Path
) -> Iterator[Prediction]:
    """
    Examine the images that are not in a file yet, and append what is found to it: whether there are artifacts, boxes
    and mask of the regions, and the map. Masks and maps are PNG files in a folder beside the file. After an
    interruption, the same call continues.

    Args:
        detector (`PixelDetector`): The detector.
        images (`Iterable[BenchmarkImage]`): Images of the benchmark.
        benchmark (`str`): Name of the benchmark.
        split (`str`, *optional*): Split; `None` for the benchmark's default.
        out (`Path`): File to write, see [`~datasets_script.evaluation.prediction_files.read_predictions`].

    Yields:
        `Prediction`: Prediction for each image that was examined, once it is on disk.

    Raises:
        UserError: The file was made with other settings, or an image cannot be decoded.
        RunBusyError: Another process is writing to the file.
    """
    header = {
        "model": detector.identity(),
        "benchmark": benchmark,
        "split": split,
        "versions": versions("torch", "transformers", "timm"),
    }
    with only_writer(out):
        done = begin_predictions(out, header)
        waiting = (image for image in images if image.id not in done)
        while group := list(islice(waiting, detector.batch_size)):
            found = detector([open_image(image) for image in group])
            for image, detection in zip(group, found, strict=True):
                record = _record(image.id, detection, out)
                append_record(out, record)
                yield _prediction(record, detection, out)


def _record(image_id: str, detection: Detection, out: Path) -> dict[str, Any]:
    """Write mask and map of an image, and return its line."""
    assert detection.artifact_map is not None and detection.regions is not None  # as of every pixel detector
    mask = np.zeros(detection.artifact_map.shape, dtype=bool)
    for region in detection.regions:
        assert region.mask is not None
        mask |= region.mask
    values = np.where(detection.artifact_map < _LEAST, 0, detection.artifact_map)
    # Ids may be paths, or hold what no file name may.
    name = hashlib.sha256(image_id.encode()).hexdigest()[:16]
    record: dict[str, Any] = {
        "id": image_id,
        "has_artifact": detection.has_artifact,
        "score": detection.score,
        "boxes": [list(region.box) for region in detection.regions],
    }
    for field, content in (("mask", stored_mask(mask)), ("artifact_map", stored_map(values))):
        path = Path(f"{out.stem}_maps", f"{name}_{field}.png")
        with replacing(out.parent / path) as temporary:
            temporary.write_bytes(content["bytes"])
        record[field] = path.as_posix()
    return record


def _prediction(record: dict[str, Any], detection: Detection, out: Path) -> Prediction:
    return Prediction(
        record["id"],
        has_artifact=detection.has_artifact,
        score=detection.score,
        boxes=tuple(region.box for region in detection.regions or ()),
        mask=out.parent / record["mask"],
        artifact_map=out.parent / record["artifact_map"],
    )
