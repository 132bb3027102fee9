"""Similarity of the clean and the artifact image in a corrupted region, and outside all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from diffusers_artifact.tools import bbox_of_mask
from diffusers_artifact.visible_change import smooth, target_mask

from ...schema.pair import Artifact


if TYPE_CHECKING:
    # Not imported at run time: it loads torch.
    from .perceptual import PerceptualMetric


LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Weights of red, green and blue in luminance (ITU-R BT.601)."""

# Window, px, and stabilising constants of SSIM for values in [0, 1] (Wang et al., "Image quality assessment: from
# error visibility to structural similarity", 2004, §III.B).
_WINDOW = 1.5
_C1, _C2 = 0.01**2, 0.03**2


@dataclass(frozen=True)
class RegionSimilarity:
    """
    Similarity of two images at a region.

    Attributes:
        ssim_inside (`float`): Mean structural similarity over the region, in [-1, 1].
        distance_inside (`float`): Perceptual distance between the crops of the region's box.
        ssim_outside, distance_outside (`float`): The same of the whole images, with the regions of all artifacts taken
            from the clean image, so that only what is outside differs; equal for all artifacts of an image.
    """

    ssim_inside: float
    distance_inside: float
    ssim_outside: float
    distance_outside: float


def region_similarities(
    artifacts: Sequence[Artifact], clean: np.ndarray, flawed: np.ndarray, perceptual: PerceptualMetric
) -> list[RegionSimilarity]:
    """
    Compare two images at the regions of artifacts.

    Args:
        artifacts (`Sequence[Artifact]`): All artifacts of the image; `part_mask` is the region, and the target patches
            are what may have changed.
        clean, flawed (`np.ndarray` of shape `(height, width, 3)`, `float32` in [0, 1]): The clean and the artifact
            image.
        perceptual (`PerceptualMetric`): Perceptual distance of crops.

    Returns:
        `list[RegionSimilarity]`: One for each artifact.
    """
    inside = ssim_map(clean, flawed)
    targets = np.logical_or.reduce([target_mask(artifact.mapping, clean.shape[0]) for artifact in artifacts])
    background = np.where(targets[..., None], clean, flawed)
    ssim_outside = float(ssim_map(clean, background)[~targets].mean(dtype=np.float64))
    distance_outside = perceptual(clean, background)
    found = []
    for artifact in artifacts:
        left, top, right, bottom = (int(side) for side in bbox_of_mask(artifact.part_mask))
        crop = slice(top, bottom), slice(left, right)
        found.append(
            RegionSimilarity(
                float(inside[artifact.part_mask].mean(dtype=np.float64)),
                perceptual(clean[crop], flawed[crop]),
                ssim_outside,
                distance_outside,
            )
        )
    return found


def ssim_map(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """
    Compute the structural similarity of two images around every pixel (Wang et al., 2004, eq. 13).

    Args:
        first, second (`np.ndarray` of shape `(height, width, 3)`, `float32` in [0, 1]): The images.

    Returns:
        `np.ndarray` of shape `(height, width)`, `float32` in [-1, 1]: 1 where the images are equal.
    """
    one, other = first @ LUMINANCE, second @ LUMINANCE
    mean_one, mean_other = smooth(one, _WINDOW), smooth(other, _WINDOW)
    product = mean_one * mean_other
    squares = np.square(mean_one) + np.square(mean_other)
    covariance = smooth(one * other, _WINDOW) - product
    variances = smooth(np.square(one) + np.square(other), _WINDOW) - squares
    return (2 * product + _C1) * (2 * covariance + _C2) / ((squares + _C1) * (variances + _C2))
