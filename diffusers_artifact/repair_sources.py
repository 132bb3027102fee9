"""What a region of a picture can be covered with: places whose surroundings look like its own, or a smooth fill."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from .repair_regions import smooth_fill


# Places among which seeds choose, and how much less likely one is whose surroundings differ by twice the best's.
_PLACES = 8
_SHARPNESS = 3.0
# Difference of colour in [0, 1] that counts as none.
_LEAST_DIFFERENCE = 0.02
# Share by which a place a token farther away counts as less alike.
_FARTHER = 0.03
# Weight of differences around a place, which the membrane makes up for.
_FRAME = 0.5
# How unlike a smooth fill is: so many times the contrast around the region, which it lacks, and a little more.
_MISSING, _BARE = 3.0, 0.02


def covered(image: Image.Image, region: np.ndarray, seeds: Sequence[int]) -> list[Image.Image]:
    """
    Cover a region with other places of the picture, one for each seed, as a retoucher clones from where it fits.

    A place is the region moved by whole tokens. It fits as far as colour and contrast around it are those around the
    region, and its own contrast is that around the region too, so that no thing is copied onto a bare wall; nearer
    places fit better. Its colours are shifted smoothly so that it joins what is around the region (seamless cloning
    with a membrane). A smooth fill counts as a place without contrast. Seeds draw from those that fit best, without
    repetition, and the first picture is of the one that fits best.

    Args:
        image (`PIL.Image.Image`): RGB.
        region (`np.ndarray` of shape `(rows, columns)`, `bool`): Tokens of the region, not the whole picture.
        seeds (`Sequence[int]`): Seeds. The first one decides which places are drawn.

    Returns:
        `list[PIL.Image.Image]`: As many pictures, equal to `image` outside the region.
    """
    pixels = np.asarray(image).astype(np.float32)
    side = pixels.shape[0] // region.shape[0]
    frame = _frame(region)
    mask, around = (np.kron(part, np.ones((side, side), dtype=bool)) for part in (region, frame))
    shifts, costs = _places(pixels / 255, region, frame)
    order = np.argsort(costs, kind="stable")[:_PLACES]
    weights = ((costs[order[0]] + _LEAST_DIFFERENCE) / (costs[order] + _LEAST_DIFFERENCE)) ** _SHARPNESS
    generator = np.random.default_rng(seeds[0])
    chosen = generator.choice(len(order), min(len(order), len(seeds)), replace=False, p=weights / weights.sum())
    best_first = np.sort(chosen)
    places = [shifts[order[best_first[number % len(best_first)]]] for number in range(len(seeds))]
    return [
        _picture(smooth_fill(pixels, ~mask))
        if place is None
        else _cloned(pixels, mask, around, (place[0] * side, place[1] * side))
        for place in places
    ]


def _places(
    pixels: np.ndarray, region: np.ndarray, frame: np.ndarray
) -> tuple[list[tuple[int, int] | None], np.ndarray]:
    """
    Return the shifts by which a region lies elsewhere, wholly in the picture, and how unlike each place is; `None` is
    the smooth fill.
    """
    rows, columns = region.shape
    looks = _looks(pixels, pixels.shape[0] // rows)
    cells, around = np.argwhere(region), np.argwhere(frame)
    low, high = cells.min(axis=0), cells.max(axis=0)
    contrast, spread = _texture(looks[frame])
    shifts: list[tuple[int, int] | None] = [None]
    costs = [_MISSING * contrast + spread / 2 + _BARE]
    for down in range(-int(low[0]), rows - int(high[0])):
        for right in range(-int(low[1]), columns - int(high[1])):
            moved, other = cells + (down, right), around + (down, right)
            if region[moved[:, 0], moved[:, 1]].any():
                continue
            legal = (other >= 0).all(axis=1) & (other < (rows, columns)).all(axis=1)
            # What lies in the region itself cannot be compared.
            legal[legal] = ~region[other[legal, 0], other[legal, 1]]
            if legal.sum() < len(around) / 2:
                continue
            here, there = around[legal], other[legal]
            difference = looks[here[:, 0], here[:, 1]] - looks[there[:, 0], there[:, 1]]
            unlike = _FRAME * float(np.sqrt((difference**2).sum(axis=1).mean()))
            own_contrast, own_spread = _texture(looks[moved[:, 0], moved[:, 1]])
            unlike += abs(own_contrast - contrast) + abs(own_spread - spread) / 2
            shifts.append((down, right))
            costs.append(unlike * (1 + _FARTHER * float(np.hypot(down, right))))
    return shifts, np.asarray(costs)


def _looks(pixels: np.ndarray, side: int) -> np.ndarray:
    """Return the mean colour and the contrast of each token, of shape `(rows, columns, 4)`."""
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    tiles = pixels.reshape(rows, side, columns, side, 3).swapaxes(1, 2).reshape(rows, columns, side * side, 3)
    return np.concatenate([tiles.mean(axis=2), tiles.mean(axis=3).std(axis=2, keepdims=True)], axis=2)


def _texture(looks: np.ndarray) -> tuple[float, float]:
    """Return the mean contrast of tokens, and how far their mean colours lie apart."""
    return float(looks[:, 3].mean()), float(looks[:, :3].std(axis=0).mean())


def _frame(region: np.ndarray) -> np.ndarray:
    """Return the tokens that touch a region, corners included."""
    grown = torch.nn.functional.max_pool2d(torch.from_numpy(region)[None].float(), 3, stride=1, padding=1)
    frame: np.ndarray = grown[0].bool().numpy() & ~region
    return frame


def _cloned(pixels: np.ndarray, mask: np.ndarray, around: np.ndarray, shift: tuple[int, int]) -> Image.Image:
    """Cover a region with the place at a distance of `shift` px, shifted in colour to join what is around."""
    moved = np.roll(pixels, (-shift[0], -shift[1]), axis=(0, 1))
    rows, columns = np.indices(mask.shape) + np.reshape(shift, (2, 1, 1))
    legal = (rows >= 0) & (rows < mask.shape[0]) & (columns >= 0) & (columns < mask.shape[1])
    known = around & legal & ~np.roll(mask, (-shift[0], -shift[1]), axis=(0, 1))
    offset = smooth_fill(np.where(known[..., None], pixels - moved, 0), known)
    return _picture(np.where(mask[..., None], moved + offset, pixels))


def _picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))
