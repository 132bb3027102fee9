"""Measures of what an injection changed, and where (ArtiAgent §5)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from diffusers_artifact.mapping import PatchMapping
from diffusers_artifact.tools import bbox_of_mask
from diffusers_artifact.visible_change import smooth, target_mask

from ...schema.pair import Artifact, ArtifactScores
from .similarity import LUMINANCE, region_similarities


if TYPE_CHECKING:
    # Not imported at run time: it loads torch, which callers of `inside_outside_ratio` do without.
    from .perceptual import PerceptualMetric


# Images that are equal outside the targets have an infinite PSNR, which JSON cannot hold. One grey level in one
# channel of one pixel of a megapixel gives 113 dB.
MAX_PSNR = 120.0

# Fills the gaps between the patches of two crops alike, so that the gaps add nothing to their distance.
_GREY = 0.5

# Standard deviations, px, of the Gaussians that texture is measured with, and averaged with around a region.
_TEXTURE_WINDOW = 4.0
_SURROUNDINGS = 8.0
# Flat ground hides nothing of the texture's own, but 5 of 255 grey levels are hard to see on any.
_LEAST_TEXTURE = 0.02


@dataclass(frozen=True)
class ImageChange:
    """
    Unwanted change of an image: outside the target patches of all artifacts.

    Attributes:
        outside (`float`): Mean absolute difference, in [0, 1].
        psnr_outside (`float`): Peak signal-to-noise ratio, in dB, at most `MAX_PSNR`.
    """

    outside: float
    psnr_outside: float

    @classmethod
    def of(cls, clean: np.ndarray, flawed: np.ndarray, targets: np.ndarray) -> ImageChange:
        """
        Measure an image.

        Args:
            clean, flawed (`np.ndarray` of shape `(height, width, 3)`, `float32` in [0, 1]): The clean and the artifact
                image.
            targets (`np.ndarray` of shape `(height, width)`, `bool`): Pixels of the target patches of all artifacts.
        """
        return cls(change_outside(clean, flawed, targets), psnr_outside(clean, flawed, targets))


@dataclass(frozen=True)
class ReferenceDistances:
    """Perceptual distances between target and reference patches of a duplication, before and after the injection."""

    before: float
    after: float


@dataclass(frozen=True)
class ArtifactChange:
    """
    Change of an image at one artifact.

    Attributes:
        inside (`float`): Mean absolute difference over the artifact's target patches, in [0, 1].
        distance (`float`): Perceptual distance between the box crops.
        contrast (`float`): Change within the mask as a multiple of the texture, see [`visible_contrast`].
        reference (`ReferenceDistances`, *optional*): For a duplication, the distances to its reference.
    """

    inside: float
    distance: float
    contrast: float
    reference: ReferenceDistances | None = None

    @classmethod
    def of(
        cls, artifact: Artifact, clean: np.ndarray, flawed: np.ndarray, perceptual: PerceptualMetric
    ) -> ArtifactChange:
        """
        Measure an artifact.

        Args:
            artifact (`Artifact`): Its mapping, mask and box are used.
            clean, flawed (`np.ndarray` of shape `(height, width, 3)`, `float32` in [0, 1]): The clean and the artifact
                image.
            perceptual (`PerceptualMetric`): Perceptual distance of crops; of the target patches if the mask is empty.
        """
        targets = target_pixels([artifact.mapping], clean.shape[1] // artifact.mapping.grid[1])
        crop = _slices(artifact.bbox if artifact.mask.any() else bbox_of_mask(targets))
        return cls(
            change_inside(clean, flawed, targets),
            perceptual(clean[crop], flawed[crop]),
            visible_contrast(clean, flawed, artifact.mask),
            _reference_distances(artifact.mapping, clean, flawed, perceptual)
            if artifact.type == "duplication"
            else None,
        )


def target_pixels(mappings: Iterable[PatchMapping], patch_size: int) -> np.ndarray:
    """
    Compute the pixels of the target patches of an image's mappings.

    Args:
        mappings (`Iterable[PatchMapping]`): At least one, all of one grid.
        patch_size (`int`): Side of a patch in pixels.

    Returns:
        `np.ndarray` of shape `(rows * patch_size, columns * patch_size)`, `bool`.
    """
    return np.logical_or.reduce([target_mask(mapping, mapping.grid[0] * patch_size) for mapping in mappings])


def change_inside(clean: np.ndarray, flawed: np.ndarray, mask: np.ndarray) -> float:
    """
    Compute the mean absolute difference within a region.

    Args:
        clean, flawed (`np.ndarray` of shape `(height, width, 3)`, `float32` in [0, 1]): The clean and the artifact
            image.
        mask (`np.ndarray` of shape `(height, width)`, `bool`): The region: the target patches of one artifact.

    Returns:
        `float` in [0, 1].

    Raises:
        ValueError: The region is empty.
    """
    if not mask.any():
        raise ValueError("`mask` must hold at least one pixel, got none")
    return float(np.abs(clean[mask] - flawed[mask]).mean(dtype=np.float64))


def change_outside(clean: np.ndarray, flawed: np.ndarray, mask: np.ndarray) -> float:
    """
    Compute the mean absolute difference outside a region.

    Args:
        clean, flawed (`np.ndarray` of shape `(height, width, 3)`, `float32` in [0, 1]): The clean and the artifact
            image.
        mask (`np.ndarray` of shape `(height, width)`, `bool`): The region: the target patches of *all* artifacts.

    Returns:
        `float` in [0, 1].

    Raises:
        ValueError: The region covers the whole image.
    """
    return change_inside(clean, flawed, _outside(mask))


def psnr_outside(clean: np.ndarray, flawed: np.ndarray, mask: np.ndarray) -> float:
    """
    Compute the peak signal-to-noise ratio outside a region.

    Args:
        clean, flawed, mask: See [`change_outside`].

    Returns:
        `float`: In dB, at most `MAX_PSNR`, which also stands for equal pixels.

    Raises:
        ValueError: The region covers the whole image.
    """
    outside = _outside(mask)
    error = float(np.square(clean[outside] - flawed[outside]).mean(dtype=np.float64))
    return MAX_PSNR if error == 0 else min(MAX_PSNR, -10 * math.log10(error))


def visible_contrast(clean: np.ndarray, flawed: np.ndarray, mask: np.ndarray) -> float:
    """
    Compute the contrast of a change against the texture around it, which masks it: the mean absolute difference over
    the changed region, divided by the local standard deviation of the clean image's luminance there.

    Args:
        clean, flawed (`np.ndarray` of shape `(height, width, 3)`, `float32` in [0, 1]): The clean and the artifact
            image.
        mask (`np.ndarray` of shape `(height, width)`, `bool`): The changed region; its surroundings count less the
            farther they are (a Gaussian of 8 px).

    Returns:
        `float`: Without unit, 1 where the change is as large as a standard deviation; 0 if the mask is empty.
    """
    if not mask.any():
        return 0.0
    luminance = clean @ LUMINANCE
    mean = smooth(luminance, _TEXTURE_WINDOW)
    deviation = np.sqrt(np.maximum(smooth(np.square(luminance), _TEXTURE_WINDOW) - np.square(mean), 0))
    texture = np.average(deviation, weights=smooth(mask.astype(np.float32), _SURROUNDINGS))
    return change_inside(clean, flawed, mask) / (_LEAST_TEXTURE + float(texture))


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Compute the peak signal-to-noise ratio of two images as in [`change_outside`], in dB, at most `MAX_PSNR`."""
    error = float(np.square(first - second).mean(dtype=np.float64))
    return MAX_PSNR if error == 0 else min(MAX_PSNR, -10 * math.log10(error))


def inside_outside_ratio(inside: float, outside: float) -> float:
    """Compute the ratio of the change inside to that outside; infinite if nothing changed outside."""
    return inside / outside if outside else math.inf


def measure(
    artifacts: Sequence[Artifact], clean: Image.Image, flawed: Image.Image, perceptual: PerceptualMetric
) -> list[ArtifactScores]:
    """
    Score the artifacts of one image. Measures of the whole image are taken once and repeated in the scores of each
    artifact.

    Args:
        artifacts (`Sequence[Artifact]`): All artifacts of the image, at least one; mappings, masks and boxes are used.
        clean, flawed (`PIL.Image.Image`): The clean and the artifact image, RGB, of one size.
        perceptual (`PerceptualMetric`): Perceptual distance of crops.

    Returns:
        `list[ArtifactScores]`: For each artifact all scores but `vlm_has_artifact` and `unchanged`; distances to the
        reference for duplications only, similarities of the region for corruptions only.
    """
    before, after = as_array(clean), as_array(flawed)
    mappings = [artifact.mapping for artifact in artifacts]
    image = ImageChange.of(before, after, target_pixels(mappings, clean.width // mappings[0].grid[1]))
    scores = [
        _scores(image, ArtifactChange.of(artifact, before, after, perceptual), perceptual) for artifact in artifacts
    ]
    if any(artifact.type == "corruption" for artifact in artifacts):
        found = region_similarities(artifacts, before, after, perceptual)
        for of_artifact, similarity in zip(scores, found, strict=True):
            of_artifact["ssim_inside"] = similarity.ssim_inside
            of_artifact["distance_inside"] = similarity.distance_inside
            of_artifact["ssim_outside"] = similarity.ssim_outside
            of_artifact["distance_outside"] = similarity.distance_outside
    return scores


def _scores(image: ImageChange, change: ArtifactChange, perceptual: PerceptualMetric) -> ArtifactScores:
    scores: ArtifactScores = {
        "change_inside": change.inside,
        "change_outside": image.outside,
        "psnr_outside": image.psnr_outside,
        "visible_contrast": change.contrast,
    }
    scores[perceptual.name] = change.distance
    if change.reference is not None:
        scores["reference_distance_before"] = change.reference.before
        scores["reference_distance_after"] = change.reference.after
        scores["closer_to_reference"] = float(change.reference.after < change.reference.before)
    return scores


def aligned_patches(mapping: PatchMapping, image: np.ndarray, of: tuple[int, ...]) -> np.ndarray:
    """
    Arrange patches of an image like a mapping's targets. With `of=mapping.targets` this is the crop of the targets,
    with `of=mapping.references` the crop that exact copies would give. Patches that are no targets are mid-grey.

    Args:
        mapping (`PatchMapping`): Gives the arrangement.
        image (`np.ndarray` of shape `(height, width, 3)`, `float32` in [0, 1]): Image that the patches are cut from.
        of (`tuple[int, ...]`): Token indices, one for each target.

    Returns:
        `np.ndarray` of the shape of the targets' bounding box in pixels, `float32`.
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
    """Convert an image to RGB as `float32` in [0, 1] of shape `(height, width, 3)`."""
    return np.asarray(image.convert("RGB"), dtype=np.float32) / 255


def _reference_distances(
    mapping: PatchMapping, clean: np.ndarray, flawed: np.ndarray, perceptual: PerceptualMetric
) -> ReferenceDistances:
    reference = aligned_patches(mapping, clean, mapping.references)
    return ReferenceDistances(
        perceptual(reference, aligned_patches(mapping, clean, mapping.targets)),
        perceptual(reference, aligned_patches(mapping, flawed, mapping.targets)),
    )


def _outside(mask: np.ndarray) -> np.ndarray:
    if mask.all():
        raise ValueError("`mask` must leave pixels outside the targets, got an image that is all targets")
    return ~mask


def _patch(row: int, column: int, size: int) -> tuple[slice, slice]:
    return slice(row * size, (row + 1) * size), slice(column * size, (column + 1) * size)


def _slices(bbox: tuple[float, float, float, float]) -> tuple[slice, slice]:
    x_min, y_min, x_max, y_max = bbox
    return slice(math.floor(y_min), math.ceil(y_max)), slice(math.floor(x_min), math.ceil(x_max))
