"""What an artifact map says: its regions, its measures, and the score of the image."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional

from evaluate_metrics.functional.instances import connected_components

from ...schema.detection import DetectedRegion, Detection, MapMeasures
from .record import PixelRecord, RegionThresholds, ScoreCalibration


# Distance that the smoothed maximum keeps from 0 and 1, where its logit is infinite.
_EPSILON = 1e-6


def read_map(artifact_map: np.ndarray, record: PixelRecord) -> Detection:
    """
    Read the detection of an image from its artifact map.

    Args:
        artifact_map (`np.ndarray` of shape `(height, width)`): Probabilities in [0, 1].
        record (`PixelRecord`): Thresholds and calibration.

    Returns:
        `Detection`: With map, score, measures and, if the score exceeds its threshold, regions with masks.
    """
    height, width = artifact_map.shape
    measures = measure(artifact_map, record)
    score = image_score(measures.smoothed_maximum, record.calibration)
    has_artifact = score > record.calibration.threshold
    return Detection(
        size=(width, height),
        has_artifact=has_artifact,
        regions=find_regions(artifact_map, record.thresholds) if has_artifact else (),
        explanation=None,
        answers={},
        score=score,
        measures=measures,
        artifact_map=artifact_map,
    )


def find_regions(artifact_map: np.ndarray, thresholds: RegionThresholds) -> tuple[DetectedRegion, ...]:
    """
    Find the regions of a map: areas of pixels above the low threshold that touch along sides or corners, if they are
    large enough and exceed the high threshold somewhere.

    Args:
        artifact_map (`np.ndarray` of shape `(height, width)`): Probabilities in [0, 1].
        thresholds (`RegionThresholds`): Thresholds and smallest area.

    Returns:
        `tuple[DetectedRegion, ...]`: From the highest to the lowest score, which is the map's maximum in the region.

    Example:

    ```python
    >>> values = np.array([[0.9, 0.4, 0.0, 0.4], [0.0, 0.0, 0.0, 0.4]])
    >>> [(region.box, region.score) for region in find_regions(values, RegionThresholds())]
    [((0.0, 0.0, 2.0, 1.0), 0.9)]

    ```
    """
    numbers = connected_components(artifact_map > thresholds.low)
    areas = np.bincount(numbers.ravel())
    maxima = np.zeros(len(areas))
    np.maximum.at(maxima, numbers.ravel(), artifact_map.ravel())
    large = areas >= max(1.0, thresholds.minimum_area * artifact_map.size)
    kept = [number for number in range(1, len(areas)) if large[number] and maxima[number] > thresholds.high]
    kept.sort(key=lambda number: -maxima[number])
    return tuple(_region(numbers == number, float(maxima[number])) for number in kept)


def measure(artifact_map: np.ndarray, record: PixelRecord) -> MapMeasures:
    """
    Measure a map.

    Args:
        artifact_map (`np.ndarray` of shape `(height, width)`): Probabilities in [0, 1].
        record (`PixelRecord`): Its calibration gives the window of the smoothed maximum, its high threshold that of
            the share.
    """
    return MapMeasures(
        smoothed_maximum=smoothed_maximum(artifact_map, record.calibration.window),
        mean=float(artifact_map.mean(dtype=np.float64)),
        share=float((artifact_map > record.thresholds.high).mean()),
    )


def smoothed_maximum(artifact_map: np.ndarray, window: float) -> float:
    """
    Compute the highest mean of a square of a map; single pixels hardly move it.

    Args:
        artifact_map (`np.ndarray` of shape `(height, width)`): Values.
        window (`float`): Side of the square, as a share of the long side; see [`ScoreCalibration`].
    """
    reach = round(window * max(artifact_map.shape) / 2)
    values = torch.from_numpy(np.ascontiguousarray(artifact_map, dtype=np.float64))[None, None]
    for sides in ((2 * reach + 1, 1), (1, 2 * reach + 1)):
        padding = (sides[0] // 2, sides[1] // 2)
        values = functional.avg_pool2d(values, sides, stride=1, padding=padding, count_include_pad=False)
    return float(values.max())


def image_score(smoothed_maximum: float, calibration: ScoreCalibration) -> float:
    """
    Compute the probability that an image has artifacts.

    Args:
        smoothed_maximum (`float`): Smoothed maximum of its map, in [0, 1].
        calibration (`ScoreCalibration`): Slope and offset.

    Returns:
        `float`: In [0, 1].
    """
    scaled = calibration.slope * logit(smoothed_maximum) + calibration.offset
    # The half of tanh does not overflow, as the exponential of the logistic function does.
    return (1 + math.tanh(scaled / 2)) / 2


def logit(smoothed_maximum: float) -> float:
    """Compute what the calibration scales: the logit of a smoothed maximum in [0, 1], finite at both ends."""
    value = min(max(smoothed_maximum, _EPSILON), 1 - _EPSILON)
    return math.log(value / (1 - value))


def _region(mask: np.ndarray, score: float) -> DetectedRegion:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    return DetectedRegion(box, score=score, mask=mask)
