"""A patch mapping from a box or mask in pixels, for who has a region of an image and no token indices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..mapping import NotApplicable, PatchMapping
from .add import add
from .distort import distort
from .fuse import fuse
from .geometry import patches_of_mask
from .remove import remove


Box = Sequence[float]
Mask = np.ndarray | Image.Image
Region = Box | Mask

_Tool = Callable[..., PatchMapping | NotApplicable]
_TOOLS_ON_ONE: dict[str, _Tool] = {"add": add, "remove": remove, "distort": distort}
_TOOLS_ON_TWO: dict[str, _Tool] = {"fuse": fuse}

# `fuse` takes two patches on either side of where the regions meet: a thin seam on grids of 30 patches and more, a
# third of the image on one of 16.
_SMALL_GRID = 30


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
    Choose the patches of an artifact in a region of an image.

    Args:
        image (`PIL.Image.Image` or `tuple[int, int]`):
            The image as the pipeline gets it, or its `(width, height)`; both are multiples of `patch_size`.
        box (`Sequence[float]`, *optional*):
            The region as `(x_min, y_min, x_max, y_max)`, pixels, exclusive maxima: an eye, a hand, a wheel. Either
            this or `mask` is needed.
        mask (`np.ndarray` of shape `(height, width)`, `bool`, or `PIL.Image.Image`, *optional*):
            The region as pixels; those that are not zero are in.
        tool (`str`, *optional*, defaults to `"add"`):
            `"add"` (the region appears a second time beside itself), `"remove"` (it vanishes under its surroundings),
            `"distort"` (its patches change places) or `"fuse"` (it grows into `other`, which it overlaps).
        within (box or mask, *optional*):
            The object that the region is a part of, a face around an eye: `"add"` puts the copy where it touches it,
            `"remove"` prefers what is outside it, and `"distort"` with `kernel="jitter"` takes content from it. By
            default nothing but the region is known of it.
        other (box or mask, *optional*):
            The second region of `"fuse"`.
        patch_size (`int`, *optional*, defaults to 16):
            Side of a token in pixels, the pipeline's `patch_size`.
        occupied (`Sequence[PatchMapping]`, *optional*):
            Artifacts of the same image, whose patches are left alone. Join them with `PatchMapping.union`.
        generator (`torch.Generator`, *optional*):
            On the CPU; makes the choice reproducible. By default torch's own.
        options:
            Further arguments of the tool, such as `kernel="strip"` for `"distort"`, `radius` or `band_radius`.

    Returns:
        [`PatchMapping`]: For the pipeline's argument `mapping`.

    Raises:
        ValueError: an unknown tool; a size that is no multiple of `patch_size`; no region, two of them or one that
            leaves the image; a region smaller than a patch; or a region in which the tool finds no room.
        TypeError: an option that the tool does not have.

    Example:

        >>> from diffusers_artifact.tools.from_region import map_region
        >>> mapping = map_region((256, 256), box=(96, 64, 128, 96), tool="remove")
        >>> mapping.grid, len(mapping), set(mapping.types)
        ((16, 16), 4, {'omission'})
    """
    tools = {**_TOOLS_ON_ONE, **_TOOLS_ON_TWO}
    if tool not in tools:
        raise ValueError(f"`tool` must be one of {', '.join(tools)}, got {tool!r}")
    if (box is None) == (mask is None):
        raise ValueError("`box` or `mask` must be given, and not both")
    if (other is not None) != (tool in _TOOLS_ON_TWO):
        raise ValueError(f"`other` must be given for {' and '.join(_TOOLS_ON_TWO)}, and for no other tool")
    size = image if isinstance(image, tuple) else image.size
    _check_size(size, patch_size)
    if box is not None:
        patches = _patches("box", box, size, patch_size)
    else:
        patches = _patches("mask", mask, size, patch_size)
    taken = np.zeros_like(patches)
    for artifact in occupied:
        taken |= artifact.target_patches() | artifact.reference_patches()
    common = {"occupied": taken, "generator": generator or torch.default_generator, **options}
    if other is not None:
        common.setdefault("band_radius", 2 if min(patches.shape) >= _SMALL_GRID else 1)
        made = tools[tool](patches, _patches("other", other, size, patch_size), **common)
    else:
        entity = patches if within is None else _patches("within", within, size, patch_size)
        made = tools[tool](patches, entity=entity, **common)
    if isinstance(made, NotApplicable):
        raise ValueError(
            f"`tool` {tool!r} finds no room for this region: {made.reason}; choose a smaller region, a larger one or "
            "another tool"
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
    """The patches of a region, all of which it touches."""
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
    """The pixels that a box touches."""
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
