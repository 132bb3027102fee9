"""Thresholds and calibration of a trained detector, fitted on held-out images, on which it was not trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from datasets_script.detection.pixel.detector import PixelDetector
from datasets_script.detection.pixel.reading import image_score, logit
from datasets_script.detection.pixel.record import PixelRecord, RegionThresholds, ScoreCalibration
from training.pixel.data import TrainingUnits


# Thresholds that the low one is chosen from.
_CANDIDATES = np.linspace(0.05, 0.8, 16)
_ITERATIONS = 100
_EPSILON = 1e-6


@dataclass(frozen=True, eq=False)
class HeldOutImages:
    """
    What is kept of held-out images to fit a detector on.

    Attributes:
        raw (`np.ndarray` of shape `(images,)`): Smoothed maximum of each map.
        is_artifact (`np.ndarray` of shape `(images,)`, `bool`): Whether the image has artifacts.
        ious (`np.ndarray` of shape `(artifact images, candidates)`): Intersection over union of map and label at each
            candidate of the low threshold.
    """

    raw: np.ndarray
    is_artifact: np.ndarray
    ious: np.ndarray


def fit_detector(
    detector: PixelDetector, units: TrainingUnits, false_alarms: float
) -> tuple[PixelRecord, dict[str, Any]]:
    """
    Fit thresholds and calibration.

    The low threshold is the one with the best mean intersection over union on artifact images (protocol artiagent),
    the high one is 0.5 or the low one. The score is calibrated by Platt scaling. Its threshold is 0.5, or higher if
    more clean images than allowed would exceed it.

    Args:
        detector (`PixelDetector`): The detector.
        units (`TrainingUnits`): Held-out units.
        false_alarms (`float`): Largest share of the clean images to take for artifact images, in (0, 1).

    Returns:
        `tuple[PixelRecord, dict]`: Its record with the fitted values, and the scores with them on the same images,
            JSON-serialisable: `pixel_iou` of the map at the low threshold, `recall` and `false_alarms` of images, and
            `is_calibrated`, which is false where artifact images do not score higher than clean ones.
    """
    seen = measure(detector, units)
    record, scores = detector.record, dict[str, Any]()
    if len(seen.ious):
        means = seen.ious.mean(axis=0)
        low = float(_CANDIDATES[means.argmax()])
        record = replace(record, thresholds=RegionThresholds(max(low, 0.5), low))
        scores["pixel_iou"] = float(means.max())
    if seen.is_artifact.any() and not seen.is_artifact.all():
        slope, offset = platt(np.array([logit(float(raw)) for raw in seen.raw]), seen.is_artifact)
        # A falling score has learned nothing; the detector then keeps the map's own.
        scores["is_calibrated"] = slope > 0
        calibration = ScoreCalibration(slope, offset) if slope > 0 else ScoreCalibration()
        values = np.array([image_score(float(raw), calibration) for raw in seen.raw])
        clean = values[~seen.is_artifact]
        threshold = min(max(0.5, float(np.quantile(clean, 1 - false_alarms, method="higher"))), 1 - _EPSILON)
        record = replace(record, calibration=replace(calibration, threshold=threshold))
        scores["recall"] = float((values[seen.is_artifact] > threshold).mean())
        scores["false_alarms"] = float((clean > threshold).mean())
    return record, scores


def measure(detector: PixelDetector, units: TrainingUnits) -> HeldOutImages:
    """Run a detector on the images of units, one unit at a time."""
    raw, is_artifact, ious = [], [], []
    for images, labels in _units(units):
        for artifact_map, label in zip(detector.maps(images), labels, strict=True):
            raw.append(detector.raw_score(artifact_map))
            is_artifact.append(bool(label.any()))
            if label.any():
                ious.append([_iou(artifact_map > candidate, label) for candidate in _CANDIDATES])
    return HeldOutImages(np.array(raw), np.array(is_artifact, dtype=bool), np.array(ious))


def platt(values: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """
    Fit the probability of a label by a logistic function of a value, by Newton's method on the cross-entropy with
    Platt's targets, which stay finite where the values separate the labels (Platt 1999).

    Args:
        values (`np.ndarray` of shape `(images,)`): Values.
        labels (`np.ndarray` of shape `(images,)`, `bool`): Labels, of both kinds.

    Returns:
        `tuple[float, float]`: Slope and offset.
    """
    positives, negatives = labels.sum(), (~labels).sum()
    targets = np.where(labels, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    columns = np.stack([values, np.ones_like(values)], axis=1)
    weights = np.zeros(2)
    for _ in range(_ITERATIONS):
        probabilities = 0.5 * (1 + np.tanh(columns @ weights / 2))
        gradient = columns.T @ (probabilities - targets)
        curvature = columns.T @ (columns * (probabilities * (1 - probabilities))[:, None]) + _EPSILON * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights -= step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < _EPSILON:
            break
    return float(weights[0]), float(weights[1])


def _units(units: TrainingUnits) -> Iterator[tuple[list[Image.Image], Sequence[np.ndarray]]]:
    for place in range(len(units)):
        items = units[place]
        images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image, _ in items]
        yield images, [label.numpy() >= 0.5 for _, label in items]


def _iou(predicted: np.ndarray, label: np.ndarray) -> float:
    return float((predicted & label).sum() / (predicted | label).sum())
