"""Patch mappings from a box or mask in pixels, for users who know a region of an image but no token indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..mapping import NotApplicable, PatchMapping
from . import TOOLS
from .geometry import patches_of_mask


Box = Sequence[float]
Mask = np.ndarray | Image.Image
Region = Box | Mask

_TOOLS_ON_TWO = [tool.name for tool in TOOLS.values() if tool.works_on == "entities"]


def map_region(
    image: Image.Image | tuple[int, int],
    *,
    box: Box | None = None,
    mask: Mask | None = None,
    tool: str = "add",
    within: Region | None = None,
    other: Region | None = None,
    patch_size: int = 16,
    occupied: Sequence[PatchMapping] = (),
    generator: torch.Generator | None = None,
    **options: Any,
) -> PatchMapping:
    """
    Make the patch mapping of an artifact in a region of an image.

    Args:
        image (`PIL.Image.Image` or `tuple[int, int]`):
            The image that the pipeline will receive, or its `(width, height)`. Both sides must be multiples of
            `patch_size`.
        box (`Sequence[float]`, *optional*):
            The region as `(x_min, y_min, x_max, y_max)` in pixels, with exclusive maxima: an eye, a hand, a wheel.
            Give either `box` or `mask`.
        mask (`np.ndarray` of shape `(height, width)`, `bool`, or `PIL.Image.Image`, *optional*):
            The region as a mask, whose pixels other than 0 belong to it.
        tool (`str`, *optional*, defaults to `"add"`):
            `"add"` (the region appears a second time beside itself), `"remove"` (it vanishes under its surroundings),
            `"distort"` (its patches change places) or `"fuse"` (it and `other`, which overlaps it, grow into each
            other).
        within (box or mask, *optional*, defaults to the region):
            The object that the region is a part of, such as the face around an eye. `"add"` places the copy where it
            touches the object, `"remove"` prefers to fill from outside it, and `"distort"` with `kernel="jitter"`
            takes content from it.
        other (box or mask, *optional*):
            The second region of `"fuse"`.
        patch_size (`int`, *optional*, defaults to 16):
            Side of a token in pixels, the pipeline's `patch_size`.
        occupied (`Sequence[PatchMapping]`, *optional*):
            Other artifacts of the same image, whose patches are left alone. Join them with `PatchMapping.union`.
        generator (`torch.Generator`, *optional*):
            CPU generator that makes the choice reproducible. Defaults to torch's own.
        options:
            Further arguments of the tool, such as `kernel="strip"` for `"distort"`, `radius` for `"add"` and
            `"remove"`, or `band_radius` for `"fuse"`.

    Returns:
        [`PatchMapping`]: Value for the pipeline's argument `mapping`.

    Raises:
        ValueError: `tool` is unknown; a side of the image is no multiple of `patch_size`; there is no region, both
            `box` and `mask`, or a region that leaves the image or is smaller than a patch; or the tool finds no room.
        TypeError: The tool does not have an option.

    Example:

        >>> from diffusers_artifact import map_region
        >>> mapping = map_region((256, 256), box=(96, 64, 128, 96), tool="remove")
        >>> mapping.grid, len(mapping), set(mapping.types)
        ((16, 16), 4, {'omission'})
    """
    if tool not in TOOLS:
        raise ValueError(f"`tool` must be one of {', '.join(TOOLS)}, got {tool!r}")
    if (box is None) == (mask is None):
        got = "neither" if box is None else "both"
        raise ValueError(f"`box` or `mask` must be given, and not both, got {got}")
    if (other is not None) != (tool in _TOOLS_ON_TWO):
        got = "none" if other is None else "one"
        raise ValueError(
            f"`other` must be given for {' and '.join(_TOOLS_ON_TWO)}, and for no other tool, got {got} for {tool}"
        )
    size = image if isinstance(image, tuple) else image.size
    _check_size(size, patch_size)
    if box is not None:
        patches = _patches("box", box, size, patch_size)
    else:
        patches = _patches("mask", mask, size, patch_size)
    taken = np.zeros_like(patches)
    for artifact in occupied:
        taken |= artifact.target_patches() | artifact.reference_patches()
    if other is not None:
        second = _patches("other", other, size, patch_size)
    else:
        second = patches if within is None else _patches("within", within, size, patch_size)
    made = TOOLS[tool].function(
        patches,
        second,
        occupied=taken,
        generator=generator or torch.default_generator,
        **{**TOOLS[tool].options_for(patches.shape), **options},
    )
    if isinstance(made, NotApplicable):
        raise ValueError(
            f"`tool` must find room for this region, got {tool!r}: {made.reason}; choose a smaller region, a larger "
            "one or another tool"
        )
    return made


def _check_size(size: tuple[int, int], patch_size: int) -> None:
    if any(side < patch_size or side % patch_size for side in size):
        legal = tuple(max(side // patch_size, 1) * patch_size for side in size)
        raise ValueError(
            f"`image` must have sides that are multiples of {patch_size}, got {size[0]}x{size[1]}; crop or resize it "
            f"to {legal[0]}x{legal[1]} first, and measure the region there"
        )


def _patches(name: str, region: Any, size: tuple[int, int], patch_size: int) -> np.ndarray:
    """Return the patches that a region touches."""
    if isinstance(region, Image.Image) or np.ndim(region) == 2:
        pixels = np.asarray(region) != 0
        if pixels.shape != size[::-1]:
            raise ValueError(f"`{name}` must have the image's shape {size[::-1]}, got {pixels.shape}")
    else:
        pixels = _filled(name, region, size)
    if pixels.sum() < patch_size**2:
        raise ValueError(
            f"`{name}` must cover at least a patch, {patch_size}x{patch_size} pixels, got {int(pixels.sum())} pixels; "
            "enlarge it, or the image"
        )
    return patches_of_mask(pixels, patch_size)


def _filled(name: str, box: Box, size: tuple[int, int]) -> np.ndarray:
    """Return the mask of the pixels that a box touches."""
    width, height = size
    if len(box) != 4:
        raise ValueError(f"`{name}` must be (x_min, y_min, x_max, y_max), got {tuple(box)}")
    x_min, y_min, x_max, y_max = (float(value) for value in box)
    if not (0 <= x_min < x_max <= width and 0 <= y_min < y_max <= height):
        raise ValueError(
            f"`{name}` must be (x_min, y_min, x_max, y_max) within the image of {width}x{height} pixels, "
            f"got {tuple(box)}"
        )
    pixels = np.zeros((height, width), dtype=bool)
    pixels[int(y_min) : int(np.ceil(y_max)), int(x_min) : int(np.ceil(x_max))] = True
    return pixels
