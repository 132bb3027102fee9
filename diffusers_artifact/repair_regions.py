"""Regions of an image that are repaired: masks of whole cells, windows around small ones, and exact compositing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.nn import functional


Box = tuple[int, int, int, int]

FADE = 6
"""Pixels over which a repair fades into the image, inside the repaired region."""

# A window is this many times as long as the region, so that the model sees what is around it.
_CONTEXT = 3.0
# Beyond, pixels hold nothing that a larger picture of them would show.
_MOST_ENLARGED = 4.0


def grown_to_cells(mask: np.ndarray, cell: int, margin: int = 0) -> np.ndarray:
    """
    Grow a mask by a margin, and then to whole cells, which is what a model can repair: of a thinner line, resizing to
    latent pixels may leave nothing.

    Args:
        mask (`np.ndarray` of shape `(height, width)`, `bool`): Pixels to repair.
        cell (`int`): Side of a cell in pixels. Cells are counted from the upper left corner.
        margin (`int`, *optional*, defaults to 0): Pixels to grow by on each side.

    Returns:
        `np.ndarray` of shape `(height, width)`, `bool`.

    Example:

        >>> grown_to_cells(np.eye(1, 6, 4, dtype=bool), cell=2, margin=1).astype(int)
        array([[0, 0, 1, 1, 1, 1]])
    """
    values = torch.from_numpy(mask)[None].float()
    if margin:
        values = functional.max_pool2d(values, 2 * margin + 1, stride=1, padding=margin)
    height, width = mask.shape
    values = functional.pad(values, (0, -width % cell, 0, -height % cell))
    cells = functional.max_pool2d(values, cell)
    whole = cells.repeat_interleave(cell, dim=1).repeat_interleave(cell, dim=2)
    return whole[0, :height, :width].bool().numpy()


def box_of(mask: np.ndarray) -> Box:
    """
    Return the box `(x_min, y_min, x_max, y_max)` of a mask, exclusive maxima.

    Raises:
        ValueError: The mask is empty.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        raise ValueError("`mask` must mark at least one pixel, got none")
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@dataclass(frozen=True)
class Window:
    """
    A part of an image that a model repairs.

    Attributes:
        box (`tuple[int, int, int, int]`): The part, `(x_min, y_min, x_max, y_max)`, exclusive maxima.
        size (`tuple[int, int]`): Width and height in which the model sees it.
    """

    box: Box
    size: tuple[int, int]

    def cut(self, image: Image.Image) -> Image.Image:
        """Return the part in the size for the model."""
        part = image.crop(self.box)
        return part if part.size == self.size else part.resize(self.size, Image.Resampling.LANCZOS)

    def cut_mask(self, mask: np.ndarray) -> np.ndarray:
        """Return the part of a mask in that size; a pixel of which any part is marked is marked."""
        left, top, right, bottom = self.box
        part = Image.fromarray(mask[top:bottom, left:right].astype(np.uint8) * 255)
        return np.asarray(part if part.size == self.size else part.resize(self.size, Image.Resampling.BOX)) > 0

    def paste(self, part: Image.Image, image: Image.Image) -> Image.Image:
        """Return an image with the part in its place."""
        left, top, right, bottom = self.box
        size = (right - left, bottom - top)
        pasted = image.copy()
        pasted.paste(part if part.size == size else part.resize(size, Image.Resampling.LANCZOS), (left, top))
        return pasted


def window_around(mask: np.ndarray, side: int, multiple: int) -> Window:
    """
    Choose what a model sees of an image in which a region is to be repaired: the region and as much on each side of
    it, enlarged or reduced to the model's own size. So a small region gets as many tokens as a large one.

    Args:
        mask (`np.ndarray` of shape `(height, width)`, `bool`): The region.
        side (`int`): Side in pixels of the images that the model draws.
        multiple (`int`): Pixels of which both sides of the model's images are multiples.

    Returns:
        `Window`: At most four times enlarged; a large region has the whole image.
    """
    left, top, right, bottom = box_of(mask)
    length = max(_CONTEXT * max(right - left, bottom - top), side / _MOST_ENLARGED)
    spans = [
        _span(start, stop, round(length), limit)
        for start, stop, limit in ((left, right, mask.shape[1]), (top, bottom, mask.shape[0]))
    ]
    lengths = [stop - start for start, stop in spans]
    scale = min(side / max(lengths), _MOST_ENLARGED)
    width, height = (max(1, round(one * scale / multiple)) * multiple for one in lengths)
    return Window((spans[0][0], spans[1][0], spans[0][1], spans[1][1]), (width, height))


def _span(start: int, stop: int, length: int, limit: int) -> tuple[int, int]:
    """Return a span of `length` around another, moved and cut to lie within 0 and `limit`."""
    length = min(length, limit)
    first = min(max(0, (start + stop - length) // 2), limit - length)
    return first, first + length


def smooth_fill(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """
    Fill what is unknown smoothly from what is known around it (push-pull interpolation).

    Args:
        values (`np.ndarray` of shape `(height, width, channels)`): Colours, or differences of colours.
        known (`np.ndarray` of shape `(height, width)`, `bool`): Where they are known, at least somewhere.

    Returns:
        `np.ndarray` of shape `(height, width, channels)`, `float32`, equal to `values` where they are known.
    """
    tensor = torch.from_numpy(values.astype(np.float32)).movedim(-1, 0)[None]
    weights = torch.from_numpy(known)[None, None].float()
    filled: np.ndarray = _pulled_and_pushed(tensor * weights, weights)[0].movedim(0, -1).numpy()
    return filled


def _pulled_and_pushed(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Interpolate known values, multiplied by their weights, from ever coarser means (push-pull interpolation)."""
    height, width = values.shape[-2:]
    if max(height, width) == 1:
        return values
    padding = (0, width % 2, 0, height % 2)
    means, shares = (functional.avg_pool2d(functional.pad(part, padding), 2) for part in (values, weights))
    confidence = shares.clamp(min=1e-6)
    coarse = _pulled_and_pushed(means / confidence * (shares > 0), (shares > 0).float())
    fine = functional.interpolate(coarse, scale_factor=2, mode="bilinear")[..., :height, :width]
    return torch.where(weights > 0, values / weights.clamp(min=1e-6), fine)


def composite(original: Image.Image, repaired: Image.Image, inside: np.ndarray, fade: int = FADE) -> Image.Image:
    """
    Put a repaired region into its image: every pixel outside the region is the original's, and the repair fades in
    over the first pixels inside.

    Args:
        original, repaired (`PIL.Image.Image`): RGB, of one size.
        inside (`np.ndarray` of shape `(height, width)`, `bool`): The region.
        fade (`int`, *optional*, defaults to `FADE`): Pixels over which it fades in; at the image's border it does not.

    Returns:
        `PIL.Image.Image`: RGB.
    """
    before, after = (np.asarray(image).astype(np.float32) for image in (original, repaired))
    weight = _faded(inside, fade)[..., None]
    blended = (before + weight * (after - before)).round().clip(0, 255)
    return Image.fromarray(np.where(inside[..., None], blended, before).astype(np.uint8))


def _faded(inside: np.ndarray, fade: int) -> np.ndarray:
    """Return weights in [0, 1] that rise over `fade` px from the border of a region to its inside."""
    if not fade:
        return inside.astype(np.float32)
    values = functional.pad(torch.from_numpy(inside)[None, None].float(), (fade,) * 4, mode="replicate")
    # 0.5 on a straight border, 1 from `fade` px inside.
    shares = functional.avg_pool2d(values, 2 * fade + 1, stride=1)[0, 0].numpy()
    weights: np.ndarray = np.clip(2 * shares - 1, 0, 1)
    return weights
