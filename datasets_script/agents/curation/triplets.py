"""The three images by which a vision-language model judges and explains one artifact (ArtiAgent §5)."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from diffusers_artifact.tools import bbox_of_mask

from ...schema.pair import Artifact
from .measures import target_pixels


# Looked at on the demo's artifacts: a part is seen with what it sits on, and still fills a good part of the close-up.
CONTEXT = 0.5
"""Margin on each side of a close-up, as a share of the box's side."""
MIN_CONTEXT = 32
"""Least margin on each side, pixels."""
CLOSE_UP_SIDE = 512
"""Least longer side of a close-up once enlarged, pixels."""

_GREY = 128

Triplet = tuple[Image.Image, Image.Image, Image.Image]
"""Scene, close-up without and close-up with an artifact; see [`make_triplet`]."""


def make_triplet(artifact: Artifact, clean: Image.Image, flawed: Image.Image) -> Triplet:
    """
    Render the scene with the artifact's place covered, and close-ups of it without and with the artifact.

    Scene and first close-up are of the reconstruction and not of the photo: it is the pair's clean image, from
    which the artifact image differs in its artifacts alone. With the photo, what the model failed to reconstruct would
    pass for the artifact, and an artifact that the clean image has too would be accepted.

    Args:
        artifact (`Artifact`): Its mapping and box are used.
        clean, flawed (`PIL.Image.Image`): RGB, of one size.

    Returns:
        `tuple[PIL.Image.Image, PIL.Image.Image, PIL.Image.Image]`: the whole of `clean` with the artifact's target
        patches grey; and the same crop of `clean` and of `flawed`, enlarged: the artifact's box with its surroundings,
        in a duplication together with what was copied, because one cannot count what is out of view.
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
    A box with its surroundings: on each side half as much again as the box is wide or high, at least 32 px, as far as
    the image goes.

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
    An image with a region painted mid-grey.

    Args:
        image (`PIL.Image.Image`): RGB.
        region (`np.ndarray` of shape `(height, width)`, `bool`): What is painted.
    """
    pixels = np.array(image)
    pixels[region] = _GREY
    return Image.fromarray(pixels)


def close_up(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """
    A crop, enlarged so that its longer side has at least 512 px: vision-language models see patches of 14 px and more,
    in which small artifacts would be lost.

    Args:
        image (`PIL.Image.Image`): RGB.
        box (`tuple[int, int, int, int]`): `(x_min, y_min, x_max, y_max)`, exclusive maxima, pixels.
    """
    crop = image.crop(box)
    scale = CLOSE_UP_SIDE / max(crop.size)
    if scale <= 1:
        return crop
    return crop.resize((round(crop.width * scale), round(crop.height * scale)), Image.Resampling.BICUBIC)
