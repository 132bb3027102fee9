"""Large images in overlapping tiles, blended into one map."""

from __future__ import annotations

from collections.abc import Callable

import torch


# Part of a tile that its neighbour shows too, and the part of that which is not used at a tile's inner edges, where a
# network sees nothing of what lies beyond.
_OVERLAP, _MARGIN = 1 / 4, 1 / 4


def tiled(predict: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, tile: int) -> torch.Tensor:
    """
    Predict the maps of images in overlapping square tiles, and blend them. Gradients pass.

    Where a pixel's prediction depends on no pixel farther than a sixteenth of `tile` from it, the result is that of
    the whole images.

    Args:
        predict (`Callable`): Function from images of shape `(batch, 3, rows, columns)` to maps of shape
            `(batch, rows, columns)`.
        images (`torch.Tensor` of shape `(batch, 3, height, width)`): The images.
        tile (`int`): Side of a tile in pixels, at least 16. Along a shorter side of the image, a tile is as long.

    Returns:
        `torch.Tensor` of shape `(batch, height, width)`.
    """
    height, width = images.shape[2:]
    total = images.new_zeros((len(images), height, width))
    weights = images.new_zeros((height, width))
    for top, bottom in _spans(height, tile):
        rows = _ramps(top, bottom, height, tile).to(images)
        for left, right in _spans(width, tile):
            weight = rows[:, None] * _ramps(left, right, width, tile).to(images)
            predicted = predict(images[:, :, top:bottom, left:right]) * weight
            total = total + _placed(predicted, (top, left), (height, width))
            weights[top:bottom, left:right] += weight
    return total / weights


def _spans(length: int, tile: int) -> list[tuple[int, int]]:
    """Spread tiles evenly over a side, as few as overlap enough."""
    if length <= tile:
        return [(0, length)]
    step = tile - round(tile * _OVERLAP)
    count = -(-(length - tile) // step) + 1
    starts = [round(index * (length - tile) / (count - 1)) for index in range(count)]
    return [(start, start + tile) for start in starts]


def _ramps(start: int, end: int, length: int, tile: int) -> torch.Tensor:
    """Weigh the pixels of a tile along one side: from 0 at inner edges to 1, and 1 at edges of the image."""
    overlap = tile * _OVERLAP
    margin = overlap * _MARGIN
    places = torch.arange(end - start, dtype=torch.float64) + 0.5
    weights = torch.ones_like(places)
    for distance, is_inner in ((places, start > 0), ((end - start) - places, end < length)):
        if is_inner:
            weights = torch.minimum(weights, ((distance - margin) / (overlap - 2 * margin)).clamp(0, 1))
    return weights


def _placed(maps: torch.Tensor, corner: tuple[int, int], shape: tuple[int, int]) -> torch.Tensor:
    (top, left), (height, width) = corner, shape
    below, right = height - top - maps.shape[1], width - left - maps.shape[2]
    return torch.nn.functional.pad(maps, (left, right, top, below))
