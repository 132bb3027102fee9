"""Regions to correct: those that a detector names, those that are given, and what of a box is the artifact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..schema.boxes import Box
from ..schema.detection import Detection
from ..utils.errors import ArgumentError
from ..utils.photos import SourceError, open_source


if TYPE_CHECKING:
    from ..agents.perception.grounding import BoxSegmenter


# What a segmenter finds in a box is the artifact only if it is this share of the box at least.
_LEAST_SHARE = 0.05


@dataclass(frozen=True, eq=False)
class Region:
    """
    A region of an image.

    Attributes:
        box (`tuple[float, float, float, float]`): `(x_min, y_min, x_max, y_max)`, exclusive maxima, pixels.
        mask (`np.ndarray` of shape `(height, width)`, `bool`): Its pixels.
        label (`str`): What is wrong there; empty if that is not known.
        score (`float`, *optional*): How sure the detector is.
        given (`bool`): Whether it was given and not detected.
    """

    box: Box
    mask: np.ndarray
    label: str = ""
    score: float | None = None
    given: bool = False


def regions_of(detection: Detection, image: Image.Image, segmenter: BoxSegmenter | None = None) -> list[Region]:
    """
    Return the regions of a detection, the surest first.

    Args:
        detection ([`Detection`]): Answer of a detector.
        image (`PIL.Image.Image`): The image.
        segmenter (`BoxSegmenter`, *optional*): Finds the thing in a box that comes without a mask, so that less than
            the box is drawn again.
    """
    found = [region for region in detection.regions or () if box_mask(region.box, image.size).any()]
    # Detectors that give no score name the surest first.
    found.sort(key=lambda region: -1.0 if region.score is None else -region.score)
    regions = []
    for region in found:
        mask = region.mask if region.mask is not None else _segmented(region.box, image, segmenter)
        regions.append(Region(region.box, mask, region.label, region.score))
    return regions


def given_region(size: tuple[int, int], box: Box | None = None, mask: np.ndarray | None = None) -> Region:
    """
    Return a region that was given.

    Args:
        size (`tuple[int, int]`): Width and height of the image.
        box (`tuple[float, float, float, float]`, *optional*): A box, exclusive maxima, pixels.
        mask (`np.ndarray` of shape `(height, width)`, `bool`, *optional*): A mask. One of both.

    Raises:
        ArgumentError: It lies outside the image, is empty, or is not of its size.
    """
    if mask is None:
        assert box is not None  # one of both
        mask = box_mask(box, size)
        if not mask.any():
            raise ArgumentError(f"`box` must lie in the image, of {size[0]}x{size[1]} px, got {box}")
    elif mask.shape != (size[1], size[0]):
        raise ArgumentError(
            f"`mask` must have the image's size of {size[0]}x{size[1]} px, got {mask.shape[1]}x{mask.shape[0]}"
        )
    if not mask.any():
        raise ArgumentError("`mask` must mark at least one pixel, got none")
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    tight = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    return Region(tight, mask, given=True)


def box_mask(box: Box, size: tuple[int, int]) -> np.ndarray:
    """Return the pixels that a box touches in an image of a width and height, of shape `(height, width)`."""
    mask = np.zeros((size[1], size[0]), dtype=bool)
    left, top = (int(max(0, np.floor(value))) for value in box[:2])
    right, bottom = (int(max(0, np.ceil(value))) for value in box[2:])
    mask[top:bottom, left:right] = True
    return mask


def read_mask(path: Path) -> np.ndarray:
    """
    Read a mask from an image file: pixels brighter than middle grey are marked.

    Raises:
        ArgumentError: The file cannot be read as an image.
    """
    try:
        return np.asarray(open_source(path, min_side=1).convert("L")) > 127
    except SourceError as error:
        raise ArgumentError(f"`mask` must be an image, got '{path}': {error}") from error


def _segmented(box: Box, image: Image.Image, segmenter: BoxSegmenter | None) -> np.ndarray:
    whole = box_mask(box, image.size)
    if segmenter is None:
        return whole
    found: np.ndarray = segmenter.segment([image], [[box]])[0][0] & whole
    return found if found.sum() >= _LEAST_SHARE * whole.sum() else whole
