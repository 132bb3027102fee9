"""The pipeline's door: photos and mappings in the forms that users have them, checked and brought into one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from .mapping import PatchMapping


ImageInput = Image.Image | np.ndarray | torch.Tensor | Sequence[Image.Image]
MappingInput = PatchMapping | Sequence[PatchMapping] | Sequence[Sequence[PatchMapping]]


def preprocess_images(image: ImageInput, patch_size: int) -> torch.Tensor:
    """
    Photos as float32 `(images, 3, height, width)` in [-1, 1].

    Raises:
        ValueError: not RGB, of several sizes, not floating point in [0, 1], or with sides off the grid of patches.
    """
    photographs = [image] if isinstance(image, Image.Image) else image
    tensor: Any = image
    if isinstance(photographs, (list, tuple)):
        kinds = {type(item).__name__ for item in photographs if not isinstance(item, Image.Image)}
        if kinds or not photographs:
            raise ValueError(
                "`image` must be PIL images, or one array or tensor of the whole batch, got a list of "
                f"{', '.join(sorted(kinds)) or 'nothing'}"
            )
        sizes = {item.size for item in photographs}
        if len(sizes) > 1:
            raise ValueError(f"`image` must hold photos of one size, got {sorted(sizes)}")
        tensor = VaeImageProcessor.pil_to_numpy(list(photographs))
    if isinstance(tensor, np.ndarray):
        tensor = VaeImageProcessor.numpy_to_pt(tensor)
    if not isinstance(tensor, torch.Tensor) or tensor.ndim != 4 or tensor.shape[1] != 3:
        shape = getattr(tensor, "shape", type(tensor).__name__)
        raise ValueError(f"`image` must be RGB photos, (batch, 3, height, width) as a tensor, got {shape}")
    if not tensor.is_floating_point():
        raise ValueError(f"`image` must be of a floating-point dtype, in [0, 1], got {tensor.dtype}")
    if not (tensor.min() >= 0 and tensor.max() <= 1):  # nor NaN
        raise ValueError(f"`image` must lie in [0, 1], got [{tensor.min():.3g}, {tensor.max():.3g}]")
    for name, side in zip(("height", "width"), tensor.shape[-2:], strict=True):
        if side % patch_size or side == 0:
            below = side // patch_size * patch_size
            nearest = [legal for legal in (below, below + patch_size) if legal]
            raise ValueError(
                f"`image` must have sides that are multiples of {patch_size}, got {name} {side}; "
                f"the nearest legal {name}s are {' and '.join(map(str, nearest))}"
            )
    return 2 * tensor.float() - 1


def arrange_mappings(
    mapping: MappingInput, num_images: int, grid: tuple[int, int]
) -> tuple[list[PatchMapping], list[int]]:
    """
    One mapping for each variant, and the index of the image each belongs to.

    Raises:
        ValueError: as many lists as images were not given, no mapping at all, or one that is not on `grid`.
    """
    nested: Any = [mapping] if hasattr(mapping, "targets") else mapping
    if num_images == 1 and nested and hasattr(nested[0], "targets"):
        nested = [nested]
    if not isinstance(nested, (list, tuple)) or any(not isinstance(variants, (list, tuple)) for variants in nested):
        got = type(nested).__name__ if not isinstance(nested, (list, tuple)) else "mappings that are in no list"
        raise ValueError(f"`mapping` must hold a list of mappings for each of {num_images} images, got {got}")
    if len(nested) != num_images:
        raise ValueError(
            f"`mapping` must hold a list of mappings for each of {num_images} images, got {len(nested)} lists"
        )
    mappings, image_indices = [], []
    for index, variants in enumerate(nested):
        for variant in variants:
            if tuple(variant.grid) != grid:
                raise ValueError(
                    f"`mapping` must be on the image's grid of {grid[0]}x{grid[1]} patches, got {variant.grid}"
                )
            # Rebuilt, because one made by another copy of this package is of another class, and to check it.
            mappings.append(PatchMapping(variant.targets, variant.references, grid, variant.types))
            image_indices.append(index)
    if not mappings:
        raise ValueError("`mapping` must hold at least one mapping, got none")
    return mappings, image_indices


def one_of(name: str, value: str, choices: Sequence[str]) -> None:
    """
    Raises:
        ValueError: `value`, of the argument `name`, is not among `choices`.
    """
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {value!r}")
