"""Checks and conversions of the pipeline's inputs: photos, mappings and string arguments."""

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
    Convert photos to one tensor.

    Args:
        image (`PIL.Image.Image`, `list[PIL.Image.Image]`, `np.ndarray` or `torch.Tensor`): RGB photos of one size.
            Arrays have shape `(images, height, width, 3)`, tensors `(images, 3, height, width)`, both in [0, 1].
        patch_size (`int`): Side of a patch in pixels, of which both sides must be multiples.

    Returns:
        `torch.Tensor` of shape `(images, 3, height, width)`, float32, in [-1, 1].

    Raises:
        ValueError: The photos are not RGB, differ in size, are not floating point in [0, 1], or have a side that is no
            multiple of `patch_size`.
    """
    photos = [image] if isinstance(image, Image.Image) else image
    tensor: Any = image
    if isinstance(photos, (list, tuple)):
        kinds = {type(item).__name__ for item in photos if not isinstance(item, Image.Image)}
        if kinds or not photos:
            got = f"a list of {', '.join(sorted(kinds))}" if kinds else "an empty list"
            raise ValueError(f"`image` must be PIL images, or one array or tensor of the whole batch, got {got}")
        sizes = {item.size for item in photos}
        if len(sizes) > 1:
            raise ValueError(f"`image` must hold photos of one size, got {sorted(sizes)}; call once for each size")
        tensor = VaeImageProcessor.pil_to_numpy(list(photos))
    if isinstance(tensor, np.ndarray):
        tensor = VaeImageProcessor.numpy_to_pt(tensor)
    if not isinstance(tensor, torch.Tensor) or tensor.ndim != 4 or tensor.shape[1] != 3:
        shape = getattr(tensor, "shape", type(tensor).__name__)
        raise ValueError(f"`image` must be RGB photos, of shape (batch, 3, height, width) as a tensor, got {shape}")
    if not tensor.is_floating_point():
        raise ValueError(f"`image` must have a floating-point dtype and lie in [0, 1], got {tensor.dtype}; convert it")
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
    Flatten mappings to one for each artifact variant.

    Args:
        mapping (`PatchMapping` or (nested) `list[PatchMapping]`): For one image, a mapping or a list of them; for
            several, one list for each image.
        num_images (`int`): Number of images.
        grid (`tuple[int, int]`): Rows and columns of tokens of the images.

    Returns:
        `tuple[list[PatchMapping], list[int]]`: The mapping of each variant, and the index of its image.

    Raises:
        ValueError: The number of lists is not `num_images`, there is no mapping, or one is not on `grid`.
    """
    nested: Any = [mapping] if hasattr(mapping, "targets") else mapping
    if num_images == 1 and nested and hasattr(nested[0], "targets"):
        nested = [nested]
    if not isinstance(nested, (list, tuple)) or any(not isinstance(variants, (list, tuple)) for variants in nested):
        got = type(nested).__name__ if not isinstance(nested, (list, tuple)) else "mappings outside such lists"
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
                    f"`mapping` must be on the image's grid of {grid[0]}x{grid[1]} patches, got a grid of "
                    f"{variant.grid[0]}x{variant.grid[1]}"
                )
            # Rebuilt to check it, and because a second copy of this package has a `PatchMapping` class of its own.
            mappings.append(PatchMapping(variant.targets, variant.references, grid, variant.types))
            image_indices.append(index)
    if not mappings:
        raise ValueError("`mapping` must hold at least one mapping, got none")
    return mappings, image_indices


def one_of(name: str, value: str, choices: Sequence[str]) -> None:
    """
    Check that a string argument has one of its legal values.

    Args:
        name (`str`): Name of the argument, for the message.
        value (`str`): Its value.
        choices (`Sequence[str]`): Legal values.

    Raises:
        ValueError: `value` is not among `choices`.
    """
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {value!r}")
