"""Regions of an image in all published forms (boxes, polygons, RLE, maps), as masks and as pixel counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask


Size = tuple[int, int]
Map = np.ndarray | Image.Image | bytes
Region = Map | Mapping[str, Any] | Sequence[Any]
Resize = str | Size

RESIZE_POLICIES = ("error", "prediction")

# Bounds of what is taken for class numbers: how many there are besides 0, and the highest.
_MOST_CLASSES, _HIGHEST_CLASS = 3, 31


@dataclass(frozen=True, eq=False)
class _Runs:
    """Mask as run lengths down the columns, starting with a run that is off; `size` is width and height."""

    counts: np.ndarray
    size: Size


@dataclass(frozen=True, eq=False)
class _Parts:
    """Parts whose union is a region; boxes are an array of shape `(boxes, 4)`."""

    boxes: np.ndarray
    polygons: Sequence[np.ndarray]
    runs: Sequence[_Runs]
    masks: Sequence[np.ndarray]


def region_mask(region: Region, size: Size, threshold: float = 0.5, resize: bool = False) -> np.ndarray:
    """
    Compute the mask of a region: the union of all its parts.

    A region is one map, or a list of parts; an empty list is an empty region. A part is one of

    - box: four numbers `(x_min, y_min, x_max, y_max)` with exclusive maxima. It holds the pixels whose centres (at
      `.5`) lie inside, so edges are rounded to the nearest pixel edge. It is clipped to the image.
    - polygon: `(x, y, x, y, ...)`, at least three points, rasterised as COCO does.
    - COCO RLE: a mapping with `size` `[height, width]` and `counts`, compressed (`str` or `bytes`) or a list of runs.
    - map: bytes of a PNG or another image file, a `PIL.Image.Image`, or an array of shape `(height, width)`; see
      [`heat_map`] for its values. A pixel belongs to the region if its value is **above** the threshold. Values that
      only class numbers have (a few small ones with gaps, or 1 beside 255) are refused; see [`class_mask`].

    Args:
        region (`Region`): Map or list of parts. An array is a map, so boxes must be given as a list.
        size (`tuple[int, int]`): Width and height of the image in pixels.
        threshold (`float`, *optional*, defaults to 0.5): Threshold in [0, 1) for heat maps. ArtiAgent reads those of
            RichHF-18K at 0.3 (§8).
        resize (`bool`, *optional*, defaults to `False`): Whether maps and RLE of another size than the image are
            resized to it, to the nearest pixel by centres.

    Returns:
        `np.ndarray` of shape `(height, width)`, `bool`.

    Raises:
        ValueError: A part has none of these forms, or a map or an RLE has another size than the image and `resize` is
            not set.

    Example:

    ```python
    >>> region_mask([(0, 0, 2, 1), (1.4, 0.6, 3, 2)], (4, 2)).astype(int)
    array([[1, 1, 0, 0],
           [0, 1, 1, 0]])

    ```
    """
    size = _checked_size("size", size)
    return _mask(_fitted(_parts(region, threshold), size, size, resize, "region"), size)


def pixel_counts(
    prediction: Region, reference: Region, size: Size, threshold: float = 0.5, resize: Resize = "error"
) -> np.ndarray:
    """
    Count the pixels of an image that are in both regions, in one of them, and in neither.

    Regions of boxes alone, or of RLE and polygons alone, are counted without building masks.

    Args:
        prediction, reference (`Region`): Regions, as in [`region_mask`].
        size (`tuple[int, int]`): Width and height of the image in pixels; boxes and polygons refer to it.
        threshold (`float`, *optional*, defaults to 0.5): Threshold in [0, 1) for the heat maps of both regions.
        resize (`str` or `tuple[int, int]`, *optional*, defaults to `"error"`): What to do with maps and RLE of another
            size than the image. `"error"` raises an error, `"prediction"` resizes the prediction to the image, and a
            width and height resize both regions, including boxes and polygons (ArtiAgent scores RichHF-18K at
            512×512, §8). Maps are resized to the nearest pixel by centres.

    Returns:
        `np.ndarray` of shape `(4,)`, `int64`: true positives, false positives, false negatives, true negatives.

    Raises:
        ValueError: A region cannot be read or has another size, or `size` or `resize` is not as described.

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
    Decode a COCO RLE.

    Unlike pycocotools, which leaves the rest of the mask uninitialised if the runs end early, this checks the runs.

    Args:
        rle (`Mapping[str, Any]`): `size` `[height, width]` and `counts`, compressed (`str` or `bytes`) or a list of
            runs.

    Returns:
        `np.ndarray` of shape `(height, width)`, `bool`.

    Raises:
        ValueError: It is not an RLE, or its runs do not add up to its size.

    Example:

    ```python
    >>> rle_mask({"size": [2, 3], "counts": [1, 2, 3]}).astype(int)
    array([[0, 1, 0],
           [1, 0, 0]])

    ```
    """
    return _mask_of_runs(_runs(rle))


def region_size(region: Region) -> Size | None:
    """Return width and height of a region's first map or RLE, or `None` if it has only boxes and polygons."""
    parts = _parts(region, 0.5)
    for runs in parts.runs:
        return runs.size
    for mask in parts.masks:
        return _size_of(mask)
    return None


def undecoded(files: Iterable[Any]) -> Iterator[Any]:
    """
    Yield the bytes of images that `datasets.Image(decode=False)` represents, reading one file at a time.

    Args:
        files (`Iterable`): Mappings with `bytes` or `path`. Other values that are false, such as `None`, pass
            unchanged, so that [`heat_map`] reports them with the number of their image.
    """
    return (file and (file["bytes"] or Path(file["path"]).read_bytes()) for file in files)


def heat_map(region: Map, masks: bool = True) -> np.ndarray:
    """
    Read the values of a map as numbers in [0, 1].

    Floats must be in [0, 1]. Integers are a mask if all are 0 or 1. Otherwise they are divided by 65535 if they are
    `uint16`, and by 255 if not. Images must be greyscale.

    Args:
        region (`bytes`, `PIL.Image.Image` or `np.ndarray` of shape `(height, width)`): The map.
        masks (`bool`, *optional*, defaults to `True`): Whether integers that are all 0 or 1 are read as a mask. If
            `False`, they raise an error unless all are 0, since a faint 8-bit heat map, whose values are 255 times
            smaller, looks the same.

    Returns:
        `np.ndarray` of shape `(height, width)`, `float64`.

    Raises:
        ValueError: It is not a map, or a value is out of range.

    Example:

    ```python
    >>> heat_map(np.array([[0, 51, 255]], dtype=np.uint8)).tolist()
    [[0.0, 0.2, 1.0]]

    ```
    """
    values, full = _levels(region)
    if not masks and values.dtype.kind in "iu" and values.max() == 1:
        raise ValueError(
            "a map must not hold only the integers 0 and 1, which may be a mask or a faint heat map; give a mask as "
            "booleans or as 0 and 255, and a heat map as floats"
        )
    return np.asarray(values, dtype=np.float64) / full


def _levels(region: Map) -> tuple[np.ndarray, int]:
    """Return the values of a map as stored, and the value that stands for 1."""
    values = _array(region)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"a map must have the shape (height, width), got {values.shape}")
    if values.dtype.kind not in "biuf":
        raise ValueError(f"a map must hold booleans, integers or floats, got {values.dtype}")
    if values.dtype == np.bool_:
        return values, 1
    low, high = values.min(), values.max()
    # Compared by kind and width, since numpy has another type for big-endian `uint16`, as in some 16-bit TIFF.
    full = 65535 if values.dtype.kind == "u" and values.dtype.itemsize == 2 else 255
    if high <= 1 or values.dtype.kind == "f":
        full = 1
    # Phrased so that NaN fails.
    if not (low >= 0 and high <= full):
        raise ValueError(f"a map of {values.dtype} must lie between 0 and {full}, got {low} to {high}")
    return values, full


def _refuse_class_numbers(values: np.ndarray) -> None:
    """
    Refuse integers that are class numbers, which no threshold separates.

    A faint heat map has the levels between its lowest and highest, or at least many of them; a map of classes has few
    values, far apart for their size, or 255 ("ignore") right beside 1.
    """
    if values.dtype.kind not in "iu":
        return
    # Nearly all maps have more values than that in a sample.
    if len(np.unique(values.ravel()[:: max(1, values.size // 1024)])) > _MOST_CLASSES + 1:
        return
    seen = np.unique(values).tolist()
    classes = [value for value in seen if value]
    few_and_far_apart = 1 < seen[-1] <= _HIGHEST_CLASS and len(classes) <= min(_MOST_CLASSES, seen[-1] / 2)
    if few_and_far_apart or classes == [1, 255]:
        raise ValueError(
            f"a map must be a mask (0 and 1, or 0 and 255) or a heat map, got the values {', '.join(map(str, seen))}, "
            "which look like class numbers; say which are artifacts with `artifact_values` and `ignore_values`, or "
            "save a mask of 0 and 255"
        )


def class_mask(region: Map, values: Sequence[int]) -> np.ndarray:
    """
    Compute the mask of the pixels of a map of class numbers that are of certain classes.

    Args:
        region (`bytes`, `PIL.Image.Image` or `np.ndarray` of shape `(height, width)`): Map of whole numbers; an image
            may be greyscale or have a palette, whose indices are the class numbers.
        values (`Sequence[int]`): Class numbers.

    Returns:
        `np.ndarray` of shape `(height, width)`, `bool`.

    Raises:
        ValueError: It is not a map of whole numbers.

    Example:

    ```python
    >>> class_mask(np.array([[0, 2, 255]], dtype=np.uint8), [2]).tolist()
    [[False, True, False]]

    ```
    """
    image = _opened(region) if isinstance(region, bytes) else region
    numbers = np.asarray(image) if isinstance(image, Image.Image) and image.mode == "P" else _array(image)
    if numbers.ndim != 2 or not numbers.size or numbers.dtype.kind not in "biu":
        raise ValueError(
            "a map of class numbers must be whole numbers of the shape (height, width), got "
            f"{numbers.dtype} of {numbers.shape}"
        )
    return np.isin(numbers, list(values))


def _array(region: Map) -> np.ndarray:
    if isinstance(region, bytes):
        return _array(_opened(region))
    if isinstance(region, Image.Image):
        # Palette indices and colours have no order, so no threshold applies.
        if region.mode not in ("1", "L", "I", "F") and not region.mode.startswith("I;16"):
            raise ValueError(f"a map must be a greyscale image (mode 1, L, I;16, I or F), got mode {region.mode}")
        return np.asarray(region)
    if not isinstance(region, np.ndarray):
        raise ValueError(f"a map must be bytes, an image or an array, got {region!r}")
    return region


def _opened(file: bytes) -> Image.Image:
    try:
        image = Image.open(BytesIO(file))
        # A truncated file opens, and fails only when its pixels are read.
        image.load()
    except OSError as error:
        raise ValueError(f"a map in bytes must be a whole image file such as PNG, got {file[:8]!r}...") from error
    return image


def _parts(region: Region, threshold: float) -> _Parts:
    if not 0 <= threshold < 1:
        raise ValueError(f"`threshold` must lie in [0, 1), got {threshold}")
    items = [region] if isinstance(region, bytes | np.ndarray | Image.Image | Mapping) else region
    if not isinstance(items, Sequence):
        raise ValueError(f"a region must be a map or a list of parts ([] for an empty region), got {region!r}")
    boxes, polygons, runs, masks = [], [], [], []
    for item in items:
        if isinstance(item, Mapping):
            runs.append(_runs(item))
        elif isinstance(item, bytes | Image.Image) or (isinstance(item, np.ndarray) and item.ndim > 1):
            values, full = _levels(item)
            _refuse_class_numbers(values)
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
        raise ValueError(f"a part of a region must be a box of 4 numbers or a polygon of 6, 8, ..., got {len(item)}")
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
    Read and check the run lengths of a COCO RLE.

    pycocotools' `merge` hangs on an RLE that is too short.
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
            f"the runs of an RLE of {width}x{height} px must add up to {width * height} pixels, got {lengths.sum()}"
        )
    return _Runs(lengths, (width, height))


def _decompressed(counts: bytes) -> np.ndarray:
    """
    Decode the runs of COCO's compressed form.

    Each character minus "0" holds 5 bits of a number, lowest first. Bit 6 is set in all but the last character, which
    carries the sign. From the fourth number on, numbers are differences to the run before the previous one.
    """
    # Characters before "0" wrap around, so that they are too large as well.
    characters = np.frombuffer(counts, dtype=np.uint8) - np.uint8(48)
    problem = ""
    if not counts:
        problem = "it is empty"
    elif characters.max() >= 64:
        problem = f"it must have characters from '0' to 'o', got {chr(counts[int(np.argmax(characters >= 64))])!r}"
    elif characters[-1] >= 32:
        problem = "it is truncated"
    if problem:
        raise ValueError(f"the `counts` of an RLE must be COCO's compressed string, got {counts[:16]!r}...: {problem}")
    ends = np.flatnonzero(characters < 32)
    starts = np.concatenate([[0], ends[:-1] + 1])
    places = np.arange(len(characters)) - np.repeat(starts, ends - starts + 1)
    if places.max() >= 12:
        raise ValueError("the `counts` of an RLE must be numbers of at most 60 bits, got a longer one")
    digits = (characters & 31).astype(np.int64)
    digits[ends] -= (digits[ends] & 16) << 1
    numbers = np.add.reduceat(digits << (5 * places), starts)
    for first in (1, 2):
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers


def _fitted(parts: _Parts, size: Size, target: Size, resizes: bool, name: str) -> _Parts:
    """Convert a region to the pixels of `target`; maps and RLE of other sizes are resized only if `resizes`."""
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
                    f"`{name}` must have the size of the image, {target[0]}x{target[1]} px, got a map of "
                    f"{mask.shape[1]}x{mask.shape[0]} px; set `resize`, or give boxes as a list, since an array is a "
                    "map"
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
            raise ValueError(f"`resize` must be 'error', 'prediction', or a width and height, got {resize!r}")
        return size
    return _checked_size("resize", resize)


def _checked_size(name: str, size: Sequence[int]) -> Size:
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"`{name}` must be two sides of at least 1 px each, got {size}")
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
    """Count the pixels in both regions, in the first and in the second."""
    sides = (predicted, true)
    if not any(side.polygons or side.runs or side.masks for side in sides):
        return _areas_of_boxes(predicted.boxes, true.boxes, size)
    if not any(len(side.boxes) or side.masks for side in sides):
        return _areas_of_runs(*([*side.runs, *_runs_of_polygons(side.polygons, size)] for side in sides))
    first, second = (_mask(side, size) for side in sides)
    return int(np.count_nonzero(first & second)), int(np.count_nonzero(first)), int(np.count_nonzero(second))


def _pixel_boxes(boxes: np.ndarray, size: Size) -> np.ndarray:
    """Round boxes to pixel edges, `int64`, such that they hold the pixels whose centres are inside."""
    return np.minimum(np.maximum(np.ceil(boxes - 0.5), 0), (*size, *size)).astype(np.int64)


def _painted(boxes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    for x_min, y_min, x_max, y_max in boxes.tolist():
        mask[y_min:y_max, x_min:x_max] = True
    return mask


def _areas_of_boxes(predicted: np.ndarray, true: np.ndarray, size: Size) -> tuple[int, int, int]:
    """Count pixels on the grid of all box edges, whose cost does not depend on the size of the image."""
    boxes = _pixel_boxes(np.concatenate([predicted, true]), size)
    # Equal edges are harmless: they make cells of width 0.
    x_edges, y_edges = np.sort(boxes[:, ::2], axis=None), np.sort(boxes[:, 1::2], axis=None)
    cells = np.empty_like(boxes)
    cells[:, ::2], cells[:, 1::2] = x_edges.searchsorted(boxes[:, ::2]), y_edges.searchsorted(boxes[:, 1::2])
    widths, heights = x_edges[1:] - x_edges[:-1], y_edges[1:] - y_edges[:-1]
    shape = (len(heights), len(widths))
    first, second = _painted(cells[: len(predicted)], shape), _painted(cells[len(predicted) :], shape)
    return int(heights @ (first & second) @ widths), int(heights @ first @ widths), int(heights @ second @ widths)


def _areas_of_runs(predicted: Sequence[_Runs], true: Sequence[_Runs]) -> tuple[int, int, int]:
    """Count pixels by going through the ends of all runs in order, tracking how many masks of each side are on."""
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
        # pycocotools allocates memory for each pixel of the outline, and reads non-finite numbers as garbage.
        points = polygon.reshape(-1, 2) / size
        if not (np.abs(points - 0.5) <= 1.5).all():
            raise ValueError(
                f"a polygon must lie within one width or height of its {width}x{height} px image, got "
                f"{polygon.tolist()}"
            )
    if not polygons:
        return []
    return [_runs(rle) for rle in coco_mask.frPyObjects([polygon.tolist() for polygon in polygons], height, width)]
