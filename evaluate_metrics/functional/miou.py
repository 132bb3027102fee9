"""Overlap of predicted and true artifact regions, under four definitions that are all called "mIoU"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from .intervals import Bootstrap, ratio, score_with_intervals
from .lengths import check_lengths
from .regions import RESIZE_POLICIES, Map, Region, Resize, Size, class_mask, pixel_counts, region_size
from .versions import versions


__all__ = ["EMPTY_POLICIES", "PROTOCOLS", "RESIZE_POLICIES", "miou", "pixel_counts", "score_pixel_counts"]


@dataclass(frozen=True)
class _Definition:
    """
    Definition of mIoU.

    Attributes:
        background (`bool`): Whether the IoU of the background is averaged in.
        average (`str`): `"images"` to average over images, `"data_set"` to compute scores from summed pixels.
        positives_only (`bool`): Whether images without artifacts are left out.
    """

    background: bool
    average: str
    positives_only: bool


@dataclass(frozen=True)
class _Classes:
    """Class numbers of artifacts, and those that do not count."""

    artifact: tuple[int, ...]
    ignore: tuple[int, ...]


PROTOCOLS: dict[str, _Definition] = {
    "artiagent": _Definition(background=False, average="images", positives_only=True),
    "legion": _Definition(background=True, average="data_set", positives_only=False),
    "menn": _Definition(background=False, average="images", positives_only=False),
    "x_aigd": _Definition(background=False, average="data_set", positives_only=False),
}

_SCORES = ("miou", "f1", "precision", "recall")
# Scores if neither the prediction nor the reference has a pixel of the class; NaN is left out of means.
_EMPTY: dict[str, tuple[float, float, float, float]] = {
    "one": (1.0, 1.0, 1.0, 1.0),
    "zero": (0.0, 0.0, 0.0, 0.0),
    "skip": (np.nan, np.nan, np.nan, np.nan),
    # LEGION's script computes IoU as I / (U + 1e-6) and sets the F1 of two empty regions to 1.
    "legion": (0.0, 1.0, 0.0, 0.0),
}
EMPTY_POLICIES = tuple(_EMPTY)


def miou(
    predictions: Iterable[Region],
    references: Iterable[Region],
    sizes: Iterable[Size] | None = None,
    protocol: str = "artiagent",
    threshold: float = 0.5,
    empty: str = "one",
    resize: Resize = "error",
    average: str | None = None,
    bootstrap: Bootstrap | None = None,
    artifact_values: Sequence[int] | None = None,
    ignore_values: Sequence[int] = (),
) -> dict[str, Any]:
    """
    Compute mIoU, F1, precision and recall of artifact pixels.

    The union of an image's predicted regions is compared with the union of its true regions. Images are read one at a
    time, so generators work and memory stays small (32 bytes per image).

    Args:
        predictions, references (`Iterable[Region]`): Region of each image, as in [`region_mask`]: a list of boxes,
            polygons or RLE, or a map. `[]` is an empty region.
        sizes (`Iterable[tuple[int, int]]`, *optional*): Width and height of each image in pixels. If not given, the
            sizes of the references, which must then be maps or RLE.
        protocol (`str`, *optional*, defaults to `"artiagent"`): `"artiagent"`, `"legion"`, `"menn"` or `"x_aigd"`, as
            defined by [`score_pixel_counts`].
        threshold (`float`, *optional*, defaults to 0.5): Value in [0, 1) above which a pixel of a heat map belongs to
            the region.
        empty (`str`, *optional*, defaults to `"one"`): Score if neither side has a pixel: `"one"`, `"zero"`, `"skip"`
            (the image is left out of the mean) or `"legion"` (IoU 0, F1 1).
        resize (`str` or `tuple[int, int]`, *optional*, defaults to `"error"`): What to do with masks and RLE that
            differ from the image in size: `"error"`, `"prediction"` (resize predictions to the image), or a width and
            height to resize both sides to.
        average (`str`, *optional*): `"images"` or `"data_set"`. If not given, the average of the protocol.
        bootstrap (`Bootstrap`, *optional*): Settings of the intervals.
        artifact_values (`Sequence[int]`, *optional*): Class numbers that are artifacts. If given, all predictions and
            references must be maps of class numbers, greyscale or with a palette, and `threshold` has no effect.
        ignore_values (`Sequence[int]`, *optional*, defaults to `()`): Class numbers of references whose pixels do not
            count, such as 255. They need `artifact_values`.

    Returns:
        `dict[str, Any]`: `miou`, `f1`, `precision` and `recall` in [0, 1] (NaN if no image counts), each with an
        `_interval`; `protocol`, `average`, `empty`, `threshold`, `resize`, and `artifact_values` and `ignore_values`
        if given; `n`, the number of images, and `n_scored`,
        the number of those that count in `miou`; `versions`.

    Raises:
        ValueError: Predictions, references and sizes differ in number, a setting is not among those above, or a region
            cannot be read; the message names the image.

    Example:

    ```python
    >>> boxes = [[(0, 0, 2, 2)], [(0, 0, 1, 1)]], [[(1, 0, 3, 2)], []]
    >>> for protocol in PROTOCOLS:
    ...     print(protocol, round(miou(*boxes, [(4, 4), (4, 4)], protocol)["miou"], 3))
    artiagent 0.333
    legion 0.56
    menn 0.167
    x_aigd 0.286

    ```
    """
    classes = _classes(artifact_values, ignore_values)
    rows = _rows(_images(predictions, references, sizes), threshold, resize, classes)
    counts = np.fromiter(rows, dtype=np.dtype((np.int64, 4)))
    result = score_pixel_counts(counts, protocol, empty, average, bootstrap)
    about = (
        {} if classes is None else {"artifact_values": list(classes.artifact), "ignore_values": list(classes.ignore)}
    )
    return {**result, "threshold": threshold, "resize": resize if isinstance(resize, str) else list(resize), **about}


def score_pixel_counts(
    counts: np.ndarray,
    protocol: str = "artiagent",
    empty: str = "one",
    average: str | None = None,
    bootstrap: Bootstrap | None = None,
) -> dict[str, Any]:
    """
    Compute mIoU, F1, precision and recall from pixel counts.

    The protocols define mIoU as follows:

    - `"artiagent"`: IoU of the artifact pixels of each image, averaged over the images that have artifacts; such an
      image scores 0 without a prediction (ArtiAgent §8).
    - `"legion"`: mean of the IoU of artifact pixels and the IoU of all other pixels, each over the whole dataset. The
      LEGION paper does not say how images are combined. Its released script computes the mean for each image and
      averages over images: use `average="images"` and `empty="legion"` to match it.
    - `"menn"`: IoU of the artifact pixels of each image, averaged over all images. Menn et al. write only "IoU" and
      "mIoU". Their scores below 3 % rule out that the background is included, so the mean must be over images. Summed
      over the dataset, as in mmsegmentation, it would be `average="data_set"`, the same as `"x_aigd"`.
    - `"x_aigd"`: TP / (TP + FP + FN) over all pixels of the dataset, as in X-AIGD's released metrics.

    F1, precision and recall are those of the artifact pixels under every protocol, averaged as mIoU is: over images,
    or computed over the dataset. Precision without any prediction and recall without any artifact are 0.

    Args:
        counts (`np.ndarray` of shape `(images, 4)`): True positives, false positives, false negatives and true
            negatives of each image in pixels, as computed by [`pixel_counts`].
        protocol (`str`, *optional*, defaults to `"artiagent"`): `"artiagent"`, `"legion"`, `"menn"` or `"x_aigd"`.
        empty (`str`, *optional*, defaults to `"one"`): Scores of a class that neither the prediction nor the reference
            has: `"one"`, `"zero"`, `"skip"` (the image is left out of the mean) or `"legion"` (IoU 0 and F1 1, as in
            its script). Under any consistent policy, the mean F1 of images lies between the mean m of their artifact
            IoU and 2m / (1 + m). A published result outside this range treats empty images differently in its two
            columns.
        average (`str`, *optional*): `"images"` or `"data_set"`. If not given, the average of the protocol.
        bootstrap (`Bootstrap`, *optional*): Settings of the intervals.

    Returns:
        `dict[str, Any]`: `miou`, `f1`, `precision` and `recall` in [0, 1] (NaN if no image counts), each with an
        `_interval` by resampling images; `protocol`, `average`, `empty`; `n`, the number of images, and `n_scored`,
        the number of those that count in `miou`; `versions`.

    Raises:
        ValueError: There is no image, `counts` has another shape, or a setting is not among those above.

    Example:

    ```python
    >>> import numpy as np
    >>> result = score_pixel_counts(np.array([[2, 2, 2, 10], [0, 1, 0, 15]]), "artiagent")
    >>> round(result["miou"], 3), result["f1"], result["n"], result["n_scored"]
    (0.333, 0.5, 2, 1)

    ```
    """
    definition = _definition(counts, protocol, empty, average)
    average = average or definition.average
    counts = np.asarray(counts, dtype=np.float64)
    counted = (counts[:, 0] + counts[:, 2] > 0) | (not definition.positives_only)
    if average == "images":
        values = _scores_of(counts, definition.background, empty)
        values[~counted] = np.nan
        weights = ~np.isnan(values)
        counted = weights[:, 0]
        statistics = np.hstack([np.nan_to_num(values), weights])
        totals = dict(zip(_SCORES, weights.sum(axis=0).tolist(), strict=True))
        result = score_with_intervals(statistics, _means, bootstrap, totals)
    else:
        statistics = counts * counted[:, None]
        # Images are resampled, not pixels; those without a pixel of either side do not change the score.
        totals = dict.fromkeys(_SCORES, float(np.count_nonzero(statistics[:, :3].any(axis=1))))
        result = score_with_intervals(
            statistics, lambda sums: _named(_scores_of(sums, definition.background, empty)), bootstrap, totals
        )
    settings = {"protocol": protocol, "average": average, "empty": empty}
    return {
        **result,
        **settings,
        "n": len(counts),
        "n_scored": int(counted.sum()),
        "versions": versions("pycocotools"),
    }


def _scores_of(counts: np.ndarray, background: bool, empty: str) -> np.ndarray:
    """Compute the four scores of each row of counts, of shape `(rows, 4)`."""
    both, false_positives, false_negatives, neither = counts.T
    wrong = false_positives + false_negatives
    ratios = ((both, both + wrong), (2 * both, 2 * both + wrong), (both, both + false_positives))
    scores = np.stack([ratio(*pair) for pair in (*ratios, (both, both + false_negatives))], axis=1)
    scores[both + wrong == 0] = _EMPTY[empty]
    if background:
        other = np.where(neither + wrong > 0, ratio(neither, neither + wrong), _EMPTY[empty][0])
        pair = np.stack([scores[:, 0], other], axis=1)
        # An image has pixels of at least one of the two classes, so this is never 0/0.
        scores[:, 0] = np.nansum(pair, axis=1) / (~np.isnan(pair)).sum(axis=1)
    return scores


def _means(sums: np.ndarray) -> Mapping[str, np.ndarray]:
    return _named(sums[:, : len(_SCORES)] / sums[:, len(_SCORES) :])


def _named(scores: np.ndarray) -> Mapping[str, np.ndarray]:
    return dict(zip(_SCORES, scores.T, strict=True))


def _definition(counts: np.ndarray, protocol: str, empty: str, average: str | None) -> _Definition:
    if np.ndim(counts) != 2 or np.shape(counts)[1] != 4:
        raise ValueError(f"`counts` must have the shape (images, 4), got {np.shape(counts)}")
    allowed = {"protocol": tuple(PROTOCOLS), "empty": EMPTY_POLICIES, "average": (None, "images", "data_set")}
    for name, value in (("protocol", protocol), ("empty", empty), ("average", average)):
        if value not in allowed[name]:
            raise ValueError(f"`{name}` must be one of {allowed[name]}, got {value!r}")
    return PROTOCOLS[protocol]


def _classes(artifact: Sequence[int] | None, ignore: Sequence[int]) -> _Classes | None:
    if artifact is None:
        if len(ignore):
            raise ValueError(f"`ignore_values` must come with `artifact_values`, got {list(ignore)} alone")
        return None
    if not len(artifact) or set(artifact) & set(ignore):
        raise ValueError(
            "`artifact_values` must be class numbers, at least one and none of `ignore_values`, got "
            f"{list(artifact)} and {list(ignore)}"
        )
    return _Classes(tuple(map(int, artifact)), tuple(map(int, ignore)))


def _rows(
    images: Iterable[tuple[Region, Region, Size | None]], threshold: float, resize: Resize, classes: _Classes | None
) -> Iterator[np.ndarray]:
    for index, (prediction, reference, size) in enumerate(images):
        try:
            size = _own_size(reference, classes) if size is None else size
            if classes is None:
                yield pixel_counts(prediction, reference, size, threshold, resize)
            else:
                yield _class_counts(prediction, reference, size, resize, classes)
        except ValueError as error:
            raise ValueError(f"image {index}: {error}") from error


def _class_counts(prediction: Region, reference: Region, size: Size, resize: Resize, classes: _Classes) -> np.ndarray:
    """Count pixels of maps of class numbers; pixels that the reference ignores are in none of the counts."""
    predicted, true = (class_mask(cast(Map, region), classes.artifact) for region in (prediction, reference))
    counts = pixel_counts(predicted, true, size, resize=resize)
    ignored = class_mask(cast(Map, reference), classes.ignore)
    if ignored.any():
        false, _, within, _ = pixel_counts(predicted, ignored, size, resize=resize)
        counts -= (0, false, 0, within)
    return counts


def _images(
    predictions: Iterable[Region], references: Iterable[Region], sizes: Iterable[Size] | None
) -> Iterable[tuple[Region, Region, Size | None]]:
    check_lengths(references, predictions=predictions, sizes=sizes)
    if sizes is not None:
        return zip(predictions, references, sizes, strict=True)
    pairs = zip(predictions, references, strict=True)
    return ((prediction, reference, None) for prediction, reference in pairs)


def _own_size(reference: Region, classes: _Classes | None) -> Size:
    if classes is not None:
        height, width = class_mask(cast(Map, reference), ()).shape
        return width, height
    size = region_size(reference)
    if size is None:
        raise ValueError("`sizes` must be given if a reference consists of boxes or polygons or is empty, got None")
    return size
