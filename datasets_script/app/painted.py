"""Masks that a person paints over an image, at the size of that image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageColor


# A brush leaves soft edges; what is at least half covered belongs to the mask.
_COVERED = 127


def painted_masks(
    value: Mapping[str, Any] | None, size: tuple[int, int], colors: Sequence[str] = ("#d55e00",)
) -> list[np.ndarray]:
    """
    Read the masks that were painted in an image editor. Editors have returned layers of other sizes than their image's
    (gradio-app/gradio#10298), and small images are shown enlarged, so layers are always brought to the image's size.

    Args:
        value (`Mapping`, *optional*): Value of `gr.ImageEditor` with `type="numpy"`; `None` for an empty editor.
        size (`tuple[int, int]`): `(width, height)` of the stored image.
        colors (`Sequence[str]`, *optional*): Colours of the brush as `"#rrggbb"`, each of which paints a mask.

    Returns:
        `list[np.ndarray]`: For each colour a mask of shape `(height, width)`, `bool`, disjoint. Where layers overlap,
        the upper one counts.
    """
    masks = [np.zeros(size[::-1], dtype=bool) for _ in colors]
    palette = np.array([ImageColor.getrgb(color)[:3] for color in colors], dtype=np.int32)
    for layer in (value or {}).get("layers") or []:
        pixels = at_size(np.asarray(layer), size)
        covered = pixels[..., 3] > _COVERED
        nearest = np.abs(pixels[..., None, :3].astype(np.int32) - palette).sum(axis=-1).argmin(axis=-1)
        for index, mask in enumerate(masks):
            mask[covered] = nearest[covered] == index
    return masks


def painting(mask: np.ndarray, size: tuple[int, int], color: str = "#d55e00") -> np.ndarray:
    """
    Draw a mask as a layer of an image editor; [`painted_masks`] reads it back exactly if `size` is not smaller.

    Args:
        mask (`np.ndarray` of shape `(height, width)`, `bool`): The mask.
        size (`tuple[int, int]`): `(width, height)` of the layer.
        color (`str`, *optional*): Colour as `"#rrggbb"`.

    Returns:
        `np.ndarray` of shape `(height, width, 4)`, `uint8`.
    """
    layer = np.zeros((*mask.shape, 4), dtype=np.uint8)
    layer[mask] = (*ImageColor.getrgb(color)[:3], 255)
    return at_size(layer, size)


def at_size(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """
    Bring a layer to a size by taking the pixel at each pixel's centre, which undoes an enlargement exactly.

    Args:
        pixels (`np.ndarray` of shape `(height, width, 4)`, `uint8`): The layer.
        size (`tuple[int, int]`): `(width, height)` wanted.
    """
    if pixels.shape[1::-1] == size:
        return pixels
    return np.asarray(Image.fromarray(pixels, "RGBA").resize(size, Image.Resampling.NEAREST))


def shown_size(size: tuple[int, int], least: int = 640) -> tuple[int, int]:
    """Return the size at which an image is shown for painting: enlarged until its long side is `least` px."""
    scale = max(1.0, least / max(size))
    return round(size[0] * scale), round(size[1] * scale)
