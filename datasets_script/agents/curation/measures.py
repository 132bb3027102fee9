"""Measures of what an injection changed, and where (ArtiAgent §5)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from diffusers_artifact.mapping import PatchMapping

from ...schema.pair import Artifact


if TYPE_CHECKING:
    from .perceptual import PerceptualMetric


# Images that are equal outside the target have an infinite PSNR, which JSON cannot hold; one grey level off in one
# channel of one pixel of a megapixel is 113 dB.
MAX_PSNR = 120.0

# Fills the gaps between the patches of two crops alike, so that the gaps add nothing to their distance.
_GREY = 0.5


def target_pixels(mappings: Iterable[PatchMapping], patch_size: int) -> np.ndarray:
    """
    The pixels of the target patches of one image's mappings.

    Args:
        mappings (`Iterable[PatchMapping]`): At least one, all of one grid.
        patch_size (`int`): Side of a patch in pixels.

    Returns:
        `np.ndarray` of shape `(rows * patch_size, columns * patch_size)`, `bool`.
    """
    patches = np.logical_or.reduce([mapping.target_patches() for mapping in mappings])
    return patches.repeat(patch_size, axis=0).repeat(patch_size, axis=1)


def change_inside(clean: np.ndarray, flawed: np.ndarray, mask: np.ndarray) -> float:
    """
    Mean absolute difference within a region.

    Args:
        clean, flawed (`np.ndarray` of shape `(height, width, 3)`, `float32` in [0, 1]): The images.
        mask (`np.ndarray` of shape `(height, width)`, `bool`): The region: the target patches of one artifact.

    Returns:
        `float` in [0, 1].

    Raises:
        ValueError: an empty region.
    """
    if not mask.any():
        raise ValueError("`mask` must hold at least one pixel, got none")
    return float(np.abs(clean[mask] - flawed[mask]).mean(dtype=np.float64))


def change_outside(clean: np.ndarray, flawed: np.ndarray, mask: np.ndarray) -> float:
    """
    Mean absolute difference outside `mask`, here the target patches of *all* artifacts of the image; otherwise as
    [`change_inside`].
    """
    return change_inside(clean, flawed, _outside(mask))


def psnr_outside(clean: np.ndarray, flawed: np.ndarray, mask: np.ndarray) -> float:
    """
    Peak signal-to-noise ratio outside `mask`, in dB, at most 120 (which also stands for no difference at all).
    Arguments as for [`change_outside`].
    """
    outside = _outside(mask)
    error = float(np.square(clean[outside] - flawed[outside]).mean(dtype=np.float64))
    return MAX_PSNR if error == 0 else min(MAX_PSNR, -10 * math.log10(error))


def inside_outside_ratio(inside: float, outside: float) -> float:
    """How many times larger the change inside is than outside; infinite if nothing changed outside."""
    return inside / outside if outside else math.inf


def measure(
    artifact: Artifact,
    clean: Image.Image,
    flawed: Image.Image,
    all_targets_mask: np.ndarray,
    perceptual: PerceptualMetric,
) -> dict[str, float]:
    """
    The scores of one artifact.

    Args:
        artifact (`Artifact`): Its mapping and box are used.
        clean, flawed (`PIL.Image.Image`): RGB, of one size.
        all_targets_mask (`np.ndarray` of shape `(height, width)`, `bool`): Pixels of the target patches of all
            artifacts of the image; see [`target_pixels`].
        perceptual (`PerceptualMetric`): Measures crops.

    Returns:
        `dict[str, float]`: `change_inside` (of the artifact's target patches), `change_outside` and `psnr_outside` (of
        what is in no target patch of the image), and the perceptual distance between the box crops under the metric's
        name. For duplications also that between target and reference patches, see [`aligned_patches`], as
        `reference_distance_before` and `reference_distance_after`, and `closer_to_reference`, 1 if it has decreased,
        else 0.
    """
    before, after = as_array(clean), as_array(flawed)
    patch_size = clean.width // artifact.mapping.grid[1]
    crop = _slices(artifact.bbox)
    scores = {
        "change_inside": change_inside(before, after, target_pixels([artifact.mapping], patch_size)),
        "change_outside": change_outside(before, after, all_targets_mask),
        "psnr_outside": psnr_outside(before, after, all_targets_mask),
        perceptual.name: perceptual(before[crop], after[crop]),
    }
    if artifact.type == "duplication":
        scores |= _reference_distances(artifact.mapping, before, after, perceptual)
    return scores


def aligned_patches(mapping: PatchMapping, image: np.ndarray, of: tuple[int, ...]) -> np.ndarray:
    """
    Patches of an image laid out as a mapping's targets lie: with `of=mapping.targets` the crop of the targets, with
    `of=mapping.references` what they would look like as exact copies. What is no target is mid-grey.

    Args:
        mapping (`PatchMapping`): Gives the layout.
        image (`np.ndarray` of shape `(height, width, 3)`, `float32` in [0, 1]): Where the patches are cut from.
        of (`tuple[int, ...]`): Token indices, one for each target.

    Returns:
        `np.ndarray` of the shape of the targets' hull in pixels, `float32`.
    """
    columns = mapping.grid[1]
    size = image.shape[1] // columns
    places = [divmod(target, columns) for target in mapping.targets]
    top, left = min(row for row, _ in places), min(column for _, column in places)
    bottom, right = max(row for row, _ in places), max(column for _, column in places)
    crop = np.full(((bottom - top + 1) * size, (right - left + 1) * size, 3), _GREY, dtype=np.float32)
    for (row, column), index in zip(places, of, strict=True):
        crop[_patch(row - top, column - left, size)] = image[_patch(*divmod(index, columns), size)]
    return crop


def as_array(image: Image.Image) -> np.ndarray:
    """An RGB image as `float32` in [0, 1] of shape `(height, width, 3)`."""
    return np.asarray(image.convert("RGB"), dtype=np.float32) / 255


def _reference_distances(
    mapping: PatchMapping, clean: np.ndarray, flawed: np.ndarray, perceptual: PerceptualMetric
) -> dict[str, float]:
    reference = aligned_patches(mapping, clean, mapping.references)
    before = perceptual(reference, aligned_patches(mapping, clean, mapping.targets))
    after = perceptual(reference, aligned_patches(mapping, flawed, mapping.targets))
    return {
        "reference_distance_before": before,
        "reference_distance_after": after,
        "closer_to_reference": float(after < before),
    }


def _outside(mask: np.ndarray) -> np.ndarray:
    if mask.all():
        raise ValueError("`mask` must leave pixels outside the targets, got an image that is all targets")
    return ~mask


def _patch(row: int, column: int, size: int) -> tuple[slice, slice]:
    return slice(row * size, (row + 1) * size), slice(column * size, (column + 1) * size)


def _slices(bbox: tuple[float, float, float, float]) -> tuple[slice, slice]:
    x_min, y_min, x_max, y_max = bbox
    return slice(math.floor(y_min), math.ceil(y_max)), slice(math.floor(x_min), math.ceil(x_max))
