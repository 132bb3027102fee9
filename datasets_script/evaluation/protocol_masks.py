"""Masks of truth and prediction as the protocol of the scores makes them, at the size at which it compares them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluate_metrics.functional.instances import x_aigd_mask
from evaluate_metrics.functional.regions import Region, Size, region_mask, region_size
from evaluate_metrics.functional.transforms import TRANSFORMS

from ..schema.image import BenchmarkImage
from ..schema.prediction import Prediction


if TYPE_CHECKING:
    from .scores import ScoringSettings


@dataclass(frozen=True, eq=False)
class Compared:
    """
    Two regions of an image, as a protocol compares them.

    Attributes:
        prediction, truth (`Region`): The regions, in a form that [`region_mask`] takes.
        size (`tuple[int, int]`): Width and height in pixels of the image, or of what a transform leaves of it.
    """

    prediction: Region
    truth: Region
    size: Size


def compared(image: BenchmarkImage, prediction: Prediction, settings: ScoringSettings) -> Compared:
    """
    Make the regions of an image that are compared.

    Args:
        image (`BenchmarkImage`): Image with its true regions.
        prediction (`Prediction`): What was predicted for it. With a transform, a mask has the size of the image or
            that after the transform; one that fits both is taken as transformed.
        settings (`ScoringSettings`): Protocol, transform, thresholds, and what to do with a mask of another size.

    Raises:
        ValueError: A region cannot be read, or the predicted mask has another size.
    """
    truth = truth_region(image, settings.truth_threshold, settings.protocol)
    predicted = predicted_region(prediction, settings.protocol)
    if settings.transform is None:
        return Compared(predicted, truth, image.size)
    transform = TRANSFORMS[settings.transform]
    size = (transform.crop, transform.crop)
    if region_size(predicted) != size:
        whole = region_mask(predicted, image.size, settings.threshold, resize=settings.resize == "prediction")
        predicted = transform(whole)
    return Compared(predicted, transform(region_mask(truth, image.size)), size)


def truth_region(image: BenchmarkImage, threshold: float, protocol: str) -> list[Any]:
    """
    Merge the regions of an image into one, in a form that [`region_mask`] takes.

    Args:
        image (`BenchmarkImage`): Image with its true regions.
        threshold (`float`): Value in [0, 1] above which a pixel of a heat map belongs to the region. It is applied
            here, because predictions may have another threshold.
        protocol (`str`): With `"artiagent"`, boxes hold the pixels of their maxima. With `"x_aigd"`, polygons are
            drawn as by [`x_aigd_mask`], else as COCO does.
    """
    parts: list[Any] = []
    for region in image.regions:
        if region.mask is not None:
            parts.append(region.mask > threshold)
        elif region.polygons and protocol == "x_aigd":
            parts.append(x_aigd_mask(region.polygons, image.size))
        elif region.polygons:
            parts += region.polygons
        elif region.bbox is not None:
            parts += _boxes([region.bbox], protocol)
    return parts


def truth_map(image: BenchmarkImage) -> np.ndarray:
    """
    Return the true artifact map of an image: heat maps as they are published, and 1 where other regions are.

    Returns:
        `np.ndarray` of shape `(height, width)`, `float64`, in [0, 1].
    """
    width, height = image.size
    values = np.zeros((height, width))
    for region in image.regions:
        if region.mask is not None:
            drawn = region.mask.astype(np.float64)
        else:
            parts = list(region.polygons) or ([] if region.bbox is None else [region.bbox])
            drawn = region_mask(parts, image.size).astype(np.float64)
        values = np.maximum(values, drawn)
    return values


def predicted_region(prediction: Prediction, protocol: str) -> Any:
    """
    Return predicted boxes or mask in a form that [`region_mask`] takes; without a prediction, no boxes. With the
    protocol `"artiagent"`, boxes hold the pixels of their maxima.
    """
    return _boxes(prediction.boxes or (), protocol) if prediction.mask is None else prediction.mask.read_bytes()


def _boxes(boxes: Sequence[Sequence[float]], protocol: str) -> list[Sequence[float]]:
    if protocol != "artiagent":
        return list(boxes)
    return [(x_min, y_min, x_max + 1, y_max + 1) for x_min, y_min, x_max, y_max in boxes]
