"""Triplets: the three images by which a vision-language model judges and explains one artifact (ArtiAgent §5)."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from diffusers_artifact.tools import bbox_of_mask

from ...schema.pair import Artifact
from .measures import target_pixels


# Shows a part together with what it sits on, while it still fills much of the close-up.
CONTEXT = 0.5
"""Margin on each side of a close-up, as a share of the box's side."""
MIN_CONTEXT = 32
"""Least margin on each side, pixels."""
CLOSE_UP_SIDE = 512
"""Least long side of a close-up, to which it is enlarged, pixels."""

_GREY = 128

Triplet = tuple[Image.Image, Image.Image, Image.Image]
"""Scene, close-up without the artifact, close-up with it; see [`make_triplet`]."""


def make_triplet(artifact: Artifact, clean: Image.Image, flawed: Image.Image) -> Triplet:
    """
    Render the scene with the artifact covered, and close-ups without and with the artifact.

    Scene and first close-up show the clean image, not the source photo, because the artifact image differs from it in
    its artifacts alone. With the photo, reconstruction errors would pass for the artifact, and an artifact that is in
    the clean image too would be accepted.

    Args:
        artifact (`Artifact`): Its mapping and box are used.
        clean, flawed (`PIL.Image.Image`): The clean and the artifact image, RGB, of one size.

    Returns:
        `tuple[PIL.Image.Image, PIL.Image.Image, PIL.Image.Image]`: The whole of `clean` with the artifact's target
        patches grey; and the same enlarged crop of `clean` and of `flawed`. The crop holds the artifact's box with its
        surroundings, and for a duplication also the original, so that a viewer can count both.
    """
    patch_size = clean.width // artifact.mapping.grid[1]
    box = context_box(_box(artifact, patch_size), clean.size)
    targets = target_pixels([artifact.mapping], patch_size)
    return cover(clean, targets), close_up(clean, box), close_up(flawed, box)


def _box(artifact: Artifact, patch_size: int) -> tuple[float, float, float, float]:
    if artifact.type != "duplication":
        return artifact.bbox
    patches = artifact.mapping.target_patches() | artifact.mapping.reference_patches()
    return bbox_of_mask(patches.repeat(patch_size, axis=0).repeat(patch_size, axis=1))


def context_box(bbox: tuple[float, float, float, float], image_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """
    Enlarge a box on each side by `CONTEXT` of its width or height, at least `MIN_CONTEXT` pixels, clipped to the
    image.

    Args:
        bbox (`tuple[float, float, float, float]`): `(x_min, y_min, x_max, y_max)`, exclusive maxima, pixels.
        image_size (`tuple[int, int]`): `(width, height)`, pixels.

    Returns:
        `tuple[int, int, int, int]`: In the same form, whole pixels.
    """
    x_min, y_min, x_max, y_max = bbox
    margin_x = max(MIN_CONTEXT, CONTEXT * (x_max - x_min))
    margin_y = max(MIN_CONTEXT, CONTEXT * (y_max - y_min))
    return (
        max(0, math.floor(x_min - margin_x)),
        max(0, math.floor(y_min - margin_y)),
        min(image_size[0], math.ceil(x_max + margin_x)),
        min(image_size[1], math.ceil(y_max + margin_y)),
    )


def cover(image: Image.Image, region: np.ndarray) -> Image.Image:
    """
    Paint a region of an image mid-grey.

    Args:
        image (`PIL.Image.Image`): RGB.
        region (`np.ndarray` of shape `(height, width)`, `bool`): Pixels to paint.
    """
    pixels = np.array(image)
    pixels[region] = _GREY
    return Image.fromarray(pixels)


def close_up(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """
    Crop an image, and enlarge the crop until its long side has at least `CLOSE_UP_SIDE` pixels: vision-language models
    see patches of 14 px and more, in which small artifacts would be lost.

    Args:
        image (`PIL.Image.Image`): RGB.
        box (`tuple[int, int, int, int]`): `(x_min, y_min, x_max, y_max)`, exclusive maxima, pixels.
    """
    crop = image.crop(box)
    scale = CLOSE_UP_SIDE / max(crop.size)
    if scale <= 1:
        return crop
    return crop.resize((round(crop.width * scale), round(crop.height * scale)), Image.Resampling.BICUBIC)
