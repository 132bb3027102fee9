"""Regions of an image, in every form they are published in, as masks and as counts of pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask


Size = tuple[int, int]
Map = np.ndarray | Image.Image | bytes
Region = Map | Mapping[str, Any] | Sequence[Any]
Resize = str | Size

RESIZE_POLICIES = ("error", "prediction")


@dataclass(frozen=True, eq=False)
class _Runs:
    """A mask as lengths of its runs down the columns, first one that is off; `size` is width and height."""

    counts: np.ndarray
    size: Size


@dataclass(frozen=True, eq=False)
class _Parts:
    """What a region is the union of, boxes as an array of shape `(boxes, 4)`."""

    boxes: np.ndarray
    polygons: Sequence[np.ndarray]
    runs: Sequence[_Runs]
    masks: Sequence[np.ndarray]


def region_mask(region: Region, size: Size, threshold: float = 0.5) -> np.ndarray:
    """
    The pixels of a region: the union of all its parts.

    A region is one map, or a list with any number of parts; an empty list is an empty region. Parts are told apart by
    their form:

    - box: four numbers `(x_min, y_min, x_max, y_max)`, exclusive maxima. It holds the pixels whose centres (at `.5`)
      lie in it, so edges are rounded to the nearest pixel edge; what is outside the image is cut off.
    - polygon: `(x, y, x, y, ...)`, three points or more, rasterised as COCO does.
    - COCO RLE: a mapping with `size` `[height, width]` and `counts`, compressed (`str` or `bytes`) or a list of runs.
    - map: bytes of a PNG (or another image file), a `PIL.Image.Image` or an array of shape `(height, width)`; see
      [`heat_map`] for its values. A pixel is in where the value is **above** the threshold.

    Args:
        region (`Region`): The map or the list of parts. An array is a map: boxes are given as a list.
        size (`tuple[int, int]`): Width and height of the image, px.
        threshold (`float`, defaults to 0.5): For maps that are no masks; RichHF-18k's heat maps are read at 0.3
            (ArtiAgent §8).

    Returns:
        `np.ndarray` of shape `(height, width)`, `bool`.

    Raises:
        ValueError: a part of no such form, a map or an RLE of another size.

    Example:

    ```python
    >>> region_mask([(0, 0, 2, 1), (1.4, 0.6, 3, 2)], (4, 2)).astype(int)
    array([[1, 1, 0, 0],
           [0, 1, 1, 0]])

    ```
    """
    size = _checked_size("size", size)
    return _mask(_fitted(_parts(region, threshold), size, size, False, "region"), size)


def pixel_counts(
    prediction: Region, reference: Region, size: Size, threshold: float = 0.5, resize: Resize = "error"
) -> np.ndarray:
    """
    How many pixels of an image are in both regions, in one of them, in none.

    Boxes alone and RLE or polygons alone are counted without making masks.

    Args:
        prediction, reference (`Region`): As in [`region_mask`].
        size (`tuple[int, int]`): Width and height of the image, px; boxes and polygons are in its pixels.
        threshold (`float`, defaults to 0.5): As in [`region_mask`], for both.
        resize (`str` or `tuple[int, int]`, defaults to `"error"`): For maps and RLE of another size than the image:
            `"error"` refuses them, `"prediction"` resizes the prediction to the image, a width and height bring both
            regions to that size, boxes and polygons included (RichHF-18k is scored at 512×512, ArtiAgent §8). A map
            takes the nearest pixel, by centres.

    Returns:
        `np.ndarray` of shape `(4,)`, `int64`: true positives, false positives, false negatives, true negatives.

    Raises:
        ValueError: as in [`region_mask`].

    Example:

    ```python
    >>> pixel_counts([(0, 0, 2, 2)], [(1, 0, 3, 2)], (4, 4)).tolist()
    [2, 2, 2, 10]

    ```
    """
    size = _checked_size("size", size)
    target = _target(size, resize)
    predicted = _fitted(_parts(prediction, threshold), size, target, resize != "error", "prediction")
    true = _fitted(_parts(reference, threshold), size, target, not isinstance(resize, str), "reference")
    both, of_prediction, of_reference = _areas(predicted, true, target)
    return np.array(
        [
            both,
            of_prediction - both,
            of_reference - both,
            target[0] * target[1] - of_prediction - of_reference + both,
        ],
        dtype=np.int64,
    )


def rle_mask(rle: Mapping[str, Any]) -> np.ndarray:
    """
    Decode a COCO RLE. Its runs are checked, unlike by pycocotools, which leaves the rest of a mask uninitialised
    where they end early.

    Args:
        rle (`Mapping[str, Any]`): `size` `[height, width]` and `counts`, compressed (`str` or `bytes`) or a list of
            runs.

    Returns:
        `np.ndarray` of shape `(height, width)`, `bool`.

    Raises:
        ValueError: it is no RLE, or its runs do not fill it.

    Example:

    ```python
    >>> rle_mask({"size": [2, 3], "counts": [1, 2, 3]}).astype(int)
    array([[0, 1, 0],
           [1, 0, 0]])

    ```
    """
    return _mask_of_runs(_runs(rle))


def region_size(region: Region) -> Size | None:
    """Width and height that a region has of itself: those of its first map or RLE; `None` for boxes and polygons."""
    parts = _parts(region, 0.5)
    for runs in parts.runs:
        return runs.size
    for mask in parts.masks:
        return _size_of(mask)
    return None


def check_lengths(references: object, **others: object) -> None:
    """Refuses what is not as many as the references, by name; what has no length shows when it is read."""
    for name, values in others.items():
        if isinstance(values, Sized) and isinstance(references, Sized) and len(values) != len(references):
            raise ValueError(f"`{name}` must be as many as `references`, {len(references)}, got {len(values)}")


def heat_map(region: Map, masks: bool = True) -> np.ndarray:
    """
    The values of a map in [0, 1].

    Floats are values in [0, 1]. Integers are a mask if none is above 1, else they are divided by 65535 if they are
    `uint16` and by 255 otherwise. Images must be greyscale.

    Args:
        region (`bytes`, `PIL.Image.Image` or `np.ndarray` of shape `(height, width)`): The map.
        masks (`bool`, defaults to `True`): Whether integers that are all 0 or 1 are a mask. Without it they are
            refused unless all are 0: a faint heat map of 8 bits looks the same, and is 255 times less.

    Returns:
        `np.ndarray` of shape `(height, width)`, `float64`.

    Raises:
        ValueError: no such map, or values out of range.

    Example:

    ```python
    >>> heat_map(np.array([[0, 51, 255]], dtype=np.uint8)).tolist()
    [[0.0, 0.2, 1.0]]

    ```
    """
    values, full = _levels(region)
    if not masks and values.dtype.kind in "iu" and values.max() == 1:
        raise ValueError(
            "a map of integers 0 and 1 is a mask or a faint heat map: give a mask as booleans or 0 and 255, a heat "
            "map as floats"
        )
    return np.asarray(values, dtype=np.float64) / full


def _levels(region: Map) -> tuple[np.ndarray, int]:
    """A map's values as they are stored, and the one that stands for 1."""
    values = _array(region)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"a map must have the shape (height, width), got {values.shape}")
    if values.dtype.kind not in "biuf":
        raise ValueError(f"a map must hold booleans, integers or floats, got {values.dtype}")
    if values.dtype == np.bool_:
        return values, 1
    low, high = values.min(), values.max()
    # By kind and width: big-endian `uint16`, which 16-bit TIFF can have, is another type to numpy.
    full = 65535 if values.dtype.kind == "u" and values.dtype.itemsize == 2 else 255
    if high <= 1 or values.dtype.kind == "f":
        full = 1
    # Written so that NaN is refused.
    if not (low >= 0 and high <= full):
        raise ValueError(f"a map of {values.dtype} must lie between 0 and {full}, got {low} to {high}")
    return values, full


def _array(region: Map) -> np.ndarray:
    if isinstance(region, bytes):
        return _array(_opened(region))
    if isinstance(region, Image.Image):
        # A palette or colours have no order that a threshold could cut.
        if region.mode not in ("1", "L", "I", "F") and not region.mode.startswith("I;16"):
            raise ValueError(f"a map must be a greyscale image (mode 1, L, I;16, I or F), got mode {region.mode}")
        return np.asarray(region)
    if not isinstance(region, np.ndarray):
        raise ValueError(f"a map must be bytes, an image or an array, got {region!r}")
    return region


def _opened(file: bytes) -> Image.Image:
    try:
        picture = Image.open(BytesIO(file))
        # A file that was cut off opens, and fails where its pixels are read.
        picture.load()
    except OSError as error:
        raise ValueError(f"a map in bytes must be a whole image file such as PNG, got {file[:8]!r}...") from error
    return picture


def _parts(region: Region, threshold: float) -> _Parts:
    if not 0 <= threshold < 1:
        raise ValueError(f"`threshold` must lie in [0, 1), got {threshold}")
    items = [region] if isinstance(region, bytes | np.ndarray | Image.Image | Mapping) else region
    if not isinstance(items, Sequence):
        raise ValueError(f"a region must be a map or a list of parts, [] for none, got {region!r}")
    boxes, polygons, runs, masks = [], [], [], []
    for item in items:
        if isinstance(item, Mapping):
            runs.append(_runs(item))
        elif isinstance(item, bytes | Image.Image) or (isinstance(item, np.ndarray) and item.ndim > 1):
            values, full = _levels(item)
            masks.append(values > threshold * full)
        elif len(numbers := _numbers(item)) == 4:
            boxes.append(numbers)
        else:
            polygons.append(np.array(numbers, dtype=np.float64))
    return _Parts(_checked_boxes(boxes), polygons, runs, masks)


def _numbers(item: Any) -> Any:
    if isinstance(item, str) or not isinstance(item, Sequence | np.ndarray):
        raise ValueError(f"a region must be a map or a list of boxes, polygons, RLE or maps, got a list with {item!r}")
    if len(item) != 4 and (len(item) < 6 or len(item) % 2):
        raise ValueError(f"a region's part must be a box of 4 numbers or a polygon of 6, 8, ..., got {len(item)}")
    return item


def _checked_boxes(boxes: Sequence[Sequence[float]]) -> np.ndarray:
    if not boxes:
        return np.zeros((0, 4))
    corners = np.array(boxes, dtype=np.float64)
    good = np.isfinite(corners).all(axis=1) & (corners[:, :2] <= corners[:, 2:]).all(axis=1)
    if not good.all():
        raise ValueError(f"a box must be finite (x_min, y_min, x_max, y_max), got {tuple(boxes[int(good.argmin())])}")
    return corners


def _runs(rle: Mapping[str, Any]) -> _Runs:
    """
    Lengths of the runs of a COCO RLE, checked.

    pycocotools' `merge` does not return from an RLE that is too short, so none reaches it unchecked.
    """
    if "size" not in rle or "counts" not in rle:
        raise ValueError(f"an RLE must have `size` and `counts`, got {sorted(map(str, rle))}")
    height, width = _checked_size("size of an RLE", rle["size"])
    counts = rle["counts"]
    if isinstance(counts, str | bytes):
        lengths = _decompressed(counts.encode() if isinstance(counts, str) else counts)
    else:
        lengths = np.asarray(counts, dtype=np.int64)
    if not len(lengths) or lengths.min() < 0 or lengths.max() > width * height or lengths.sum() != width * height:
        raise ValueError(
            f"the runs of an RLE must fill its {width}x{height} px, got {lengths.sum()} px: they must add up to "
            f"{width * height} pixels, got {lengths.sum()}"
        )
    return _Runs(lengths, (width, height))


def _decompressed(counts: bytes) -> np.ndarray:
    """
    Runs of COCO's compressed form: numbers of 5 bits a character from "0" on, lowest first, bit 6 set in all but the
    last, which carries the sign; from the fourth on they are differences to the run before the last one.
    """
    # What is before "0" wraps around and is too large as well.
    characters = np.frombuffer(counts, dtype=np.uint8) - np.uint8(48)
    problem = ""
    if not counts:
        problem = "it is empty"
    elif characters.max() >= 64:
        problem = f"it must have characters from '0' to 'o', got {chr(counts[int(np.argmax(characters >= 64))])!r}"
    elif characters[-1] >= 32:
        problem = "it is cut off"
    if problem:
        raise ValueError(f"the `counts` of an RLE must be COCO's compressed string, got {counts[:16]!r}...: {problem}")
    ends = np.flatnonzero(characters < 32)
    starts = np.concatenate([[0], ends[:-1] + 1])
    places = np.arange(len(characters)) - np.repeat(starts, ends - starts + 1)
    if places.max() >= 12:
        raise ValueError("the `counts` of an RLE must be numbers of 60 bits at most, got a longer one")
    digits = (characters & 31).astype(np.int64)
    digits[ends] -= (digits[ends] & 16) << 1
    numbers = np.add.reduceat(digits << (5 * places), starts)
    for first in (1, 2):
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers


def _fitted(parts: _Parts, size: Size, target: Size, resizes: bool, name: str) -> _Parts:
    """The same region in the pixels of `target`; maps and RLE of other sizes only where `resizes`."""
    runs, masks = [], list(parts.masks)
    for run in parts.runs:
        if run.size == target:
            runs.append(run)
        else:
            masks.append(_mask_of_runs(run))
    for position, mask in enumerate(masks):
        if _size_of(mask) != target:
            if not resizes:
                raise ValueError(
                    f"`{name}` must be {target[0]}x{target[1]} px as the image, got a map of "
                    f"{mask.shape[1]}x{mask.shape[0]} px; see `resize` (an array is a map: give boxes as a list)"
                )
            masks[position] = _resized(mask, target)
    if target == size:
        return _Parts(parts.boxes, parts.polygons, runs, masks)
    scale = np.divide(target, size)
    polygons = [(polygon.reshape(-1, 2) * scale).ravel() for polygon in parts.polygons]
    return _Parts(parts.boxes * np.tile(scale, 2), polygons, runs, masks)


def _target(size: Size, resize: Resize) -> Size:
    if isinstance(resize, str):
        if resize not in RESIZE_POLICIES:
            raise ValueError(f"`resize` must be 'error', 'prediction' or a width and height, got {resize!r}")
        return size
    return _checked_size("resize", resize)


def _checked_size(name: str, size: Sequence[int]) -> Size:
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"`{name}` must be two sides of at least 1 px, got {size}")
    return int(size[0]), int(size[1])


def _size_of(mask: np.ndarray) -> Size:
    return mask.shape[1], mask.shape[0]


def _resized(mask: np.ndarray, target: Size) -> np.ndarray:
    columns, rows = (
        (2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(target, _size_of(mask), strict=True)
    )
    return mask[np.ix_(rows, columns)]


def _mask(parts: _Parts, size: Size) -> np.ndarray:
    mask = _painted(_pixel_boxes(parts.boxes, size), (size[1], size[0]))
    for runs in [*parts.runs, *_runs_of_polygons(parts.polygons, size)]:
        mask |= _mask_of_runs(runs)
    for other in parts.masks:
        mask |= other
    return mask


def _areas(predicted: _Parts, true: _Parts, size: Size) -> tuple[int, int, int]:
    """Pixels in both regions, in the first, in the second."""
    sides = (predicted, true)
    if not any(side.polygons or side.runs or side.masks for side in sides):
        return _areas_of_boxes(predicted.boxes, true.boxes, size)
    if not any(len(side.boxes) or side.masks for side in sides):
        return _areas_of_runs(*([*side.runs, *_runs_of_polygons(side.polygons, size)] for side in sides))
    first, second = (_mask(side, size) for side in sides)
    return int(np.count_nonzero(first & second)), int(np.count_nonzero(first)), int(np.count_nonzero(second))


def _pixel_boxes(boxes: np.ndarray, size: Size) -> np.ndarray:
    """Boxes with edges between pixels, `int64`: a pixel is in where its centre is."""
    return np.minimum(np.maximum(np.ceil(boxes - 0.5), 0), (*size, *size)).astype(np.int64)


def _painted(boxes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    for x_min, y_min, x_max, y_max in boxes.tolist():
        mask[y_min:y_max, x_min:x_max] = True
    return mask


def _areas_of_boxes(predicted: np.ndarray, true: np.ndarray, size: Size) -> tuple[int, int, int]:
    """On a grid whose lines are the edges of the boxes, so as fast for any size of the image."""
    boxes = _pixel_boxes(np.concatenate([predicted, true]), size)
    # Equal edges only make cells of no width.
    x_edges, y_edges = np.sort(boxes[:, ::2], axis=None), np.sort(boxes[:, 1::2], axis=None)
    cells = np.empty_like(boxes)
    cells[:, ::2], cells[:, 1::2] = x_edges.searchsorted(boxes[:, ::2]), y_edges.searchsorted(boxes[:, 1::2])
    widths, heights = x_edges[1:] - x_edges[:-1], y_edges[1:] - y_edges[:-1]
    shape = (len(heights), len(widths))
    first, second = _painted(cells[: len(predicted)], shape), _painted(cells[len(predicted) :], shape)
    return int(heights @ (first & second) @ widths), int(heights @ first @ widths), int(heights @ second @ widths)


def _areas_of_runs(predicted: Sequence[_Runs], true: Sequence[_Runs]) -> tuple[int, int, int]:
    """By going through the ends of all runs in order, with the number of masks of each side that are on there."""
    ends, steps = [np.zeros(0, dtype=np.int64)], [np.zeros((2, 0), dtype=np.int64)]
    for side, runs in [*((0, each) for each in predicted), *((1, each) for each in true)]:
        step = np.zeros((2, len(runs.counts)), dtype=np.int64)
        step[side, ::2], step[side, 1::2] = 1, -1
        ends.append(np.cumsum(runs.counts))
        steps.append(step)
    positions = np.concatenate(ends)
    order = np.argsort(positions, kind="stable")
    first, second = np.cumsum(np.concatenate(steps, axis=1)[:, order], axis=1)[:, :-1] > 0
    lengths = np.diff(positions[order])
    return int(lengths @ (first & second)), int(lengths @ first), int(lengths @ second)


def _mask_of_runs(runs: _Runs) -> np.ndarray:
    width, height = runs.size
    return np.repeat(np.arange(len(runs.counts)) % 2 == 1, runs.counts).reshape(width, height).T


def _runs_of_polygons(polygons: Sequence[np.ndarray], size: Size) -> list[_Runs]:
    width, height = size
    for polygon in polygons:
        # pycocotools takes memory for each pixel of the outline, and reads what is not finite as anything.
        points = polygon.reshape(-1, 2) / size
        if not (np.abs(points - 0.5) <= 1.5).all():
            raise ValueError(
                f"a polygon must lie within one {width}x{height} px image around the image, got {polygon.tolist()}"
            )
    if not polygons:
        return []
    return [_runs(rle) for rle in coco_mask.frPyObjects([polygon.tolist() for polygon in polygons], height, width)]
