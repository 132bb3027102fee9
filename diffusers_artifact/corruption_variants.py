"""Variants of a corruption: which mask of which photo is corrupted by which method and at which level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .choices import CORRUPTION_NAMES
from .corruption_levels import sigma_of_step
from .inputs import one_of


if TYPE_CHECKING:
    # Not `from .x import y`: of a repository on the Hub, diffusers fetches a file once for every such line that leads
    # to it, from each module that leads there.
    from . import corruption_levels, corruptions

    CorruptionPreset = corruption_levels.CorruptionPreset
    NoiseLevel = corruptions.NoiseLevel


MaskInput = np.ndarray | torch.Tensor | Sequence[np.ndarray | torch.Tensor] | Sequence[Sequence[Any]]


@dataclass(frozen=True, eq=False)
class CorruptionVariant:
    """
    One corrupted image to make.

    Attributes:
        photo (`int`): Index of its photo.
        mask (`np.ndarray` of shape `(height, width)`, `bool`): Where it is corrupted, on the latent grid.
        method (`str`): Name of the corruption.
        sigma (`float`): Level asked for.
    """

    photo: int
    mask: np.ndarray
    method: str
    sigma: float


@dataclass(frozen=True)
class ResamplingBatch:
    """
    Images that are resampled together, from one level: clean images first, then variants.

    Attributes:
        level (`NoiseLevel`): Their level.
        photos (`list[int]`): For each clean image, the index of its photo.
        variants (`list[int]`): Indices of the variants.
        clean_rows (`list[int]`): For each variant, the row of its clean image.
    """

    level: NoiseLevel
    photos: list[int]
    variants: list[int]
    clean_rows: list[int]


def plan_batches(variants: Sequence[CorruptionVariant], levels: Sequence[NoiseLevel]) -> list[ResamplingBatch]:
    """
    Divide variants into batches of one level, with the clean image of every photo that they need.

    Args:
        variants (`Sequence[CorruptionVariant]`): The variants.
        levels (`Sequence[NoiseLevel]`): Level of each variant.

    Returns:
        `list[ResamplingBatch]`: In the order in which the levels come first.
    """
    batches = []
    for level in dict.fromkeys(levels):
        chosen = [index for index, own in enumerate(levels) if own == level]
        photos = list(dict.fromkeys(variants[index].photo for index in chosen))
        rows = [photos.index(variants[index].photo) for index in chosen]
        batches.append(ResamplingBatch(level, photos, chosen, rows))
    return batches


def arrange_variants(
    mask: MaskInput,
    method: str | Sequence[str],
    step: int | Sequence[int] | None,
    sigma: float | Sequence[float] | None,
    preset: CorruptionPreset,
    num_images: int,
    size: tuple[int, int],
    latent_side: int,
) -> list[CorruptionVariant]:
    """
    Combine masks, methods and levels to variants, and bring the masks to the latent grid.

    A latent pixel is corrupted if any of its pixels is marked, so that a thin line is never lost.

    Args:
        mask, method, step, sigma: As in [`ArtifactCorruptionPipeline.__call__`].
        preset (`CorruptionPreset`): Levels of the methods where neither `step` nor `sigma` is given.
        num_images (`int`): Number of photos.
        size (`tuple[int, int]`): Their height and width in pixels.
        latent_side (`int`): Side of a latent pixel in pixels.

    Returns:
        `list[CorruptionVariant]`: In the order of photos, masks, methods and levels, the last fastest.

    Raises:
        ValueError: An argument is not as described; the message names it.
    """
    masks = _arrange_masks(mask, num_images, size)
    methods = [method] if isinstance(method, str) else list(method)
    for name in methods:
        one_of("method", name, CORRUPTION_NAMES)
    sigmas = _levels(step, sigma)
    for name, values in (("method", methods), ("step" if sigma is None else "sigma", sigmas)):
        if values is not None and not values:
            raise ValueError(f"`{name}` must hold at least one value, got none")
    return [
        CorruptionVariant(photo, _to_latent_grid(pixels, latent_side), name, level)
        for photo, pixels in masks
        for name in methods
        for level in sigmas or [preset.level(name)]
    ]


def _levels(step: int | Sequence[int] | None, sigma: float | Sequence[float] | None) -> list[float] | None:
    if step is not None and sigma is not None:
        raise ValueError(f"`step` must be None where `sigma` is given, got {step} with {sigma}; leave one of them out")
    if step is not None:
        return [sigma_of_step(value) for value in _listed(step)]
    if sigma is None:
        return None
    sigmas = _listed(sigma)
    for value in sigmas:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
            raise ValueError(f"`sigma` must be above 0 and at most 1, got {value!r}")
    return [float(value) for value in sigmas]


def _listed(values: Any) -> list[Any]:
    return list(values) if isinstance(values, (list, tuple)) else [values]


def _arrange_masks(mask: MaskInput, num_images: int, size: tuple[int, int]) -> list[tuple[int, np.ndarray]]:
    """Flatten masks to pairs of a photo's index and a mask in pixels."""

    def is_mask(value: Any) -> bool:
        return isinstance(value, (np.ndarray, torch.Tensor))

    nested: Any = [mask] if is_mask(mask) else mask
    if num_images == 1 and isinstance(nested, (list, tuple)) and nested and all(map(is_mask, nested)):
        nested = [nested]
    if not isinstance(nested, (list, tuple)) or any(not isinstance(masks, (list, tuple)) for masks in nested):
        got = type(nested).__name__ if not isinstance(nested, (list, tuple)) else "masks outside such lists"
        raise ValueError(f"`mask` must hold a list of masks for each of {num_images} images, got {got}")
    if len(nested) != num_images:
        raise ValueError(f"`mask` must hold a list of masks for each of {num_images} images, got {len(nested)} lists")
    flat = [(photo, _checked(value, size)) for photo, masks in enumerate(nested) for value in masks]
    if not flat:
        raise ValueError("`mask` must hold at least one mask, got none")
    return flat


def _checked(mask: Any, size: tuple[int, int]) -> np.ndarray:
    if not isinstance(mask, (np.ndarray, torch.Tensor)):
        raise ValueError(f"`mask` must hold arrays or tensors, got {type(mask).__name__}")
    pixels = mask.cpu().numpy() if isinstance(mask, torch.Tensor) else mask
    if pixels.dtype != np.bool_:
        raise ValueError(f"`mask` must be Boolean, got {pixels.dtype}; compare it, as in `mask > 127`")
    if pixels.shape != size:
        raise ValueError(f"`mask` must have the photo's height and width, {size}, got shape {pixels.shape}")
    if not pixels.any():
        raise ValueError("`mask` must mark at least one pixel, got none")
    return pixels


def _to_latent_grid(mask: np.ndarray, side: int) -> np.ndarray:
    height, width = mask.shape
    return np.asarray(mask.reshape(height // side, side, width // side, side).any(axis=(1, 3)))
