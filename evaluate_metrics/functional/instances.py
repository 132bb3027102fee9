"""X-AIGD's instance protocol: boxes that lie on connected areas of artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .intervals import Bootstrap, ratio, score_with_intervals
from .lengths import check_lengths
from .outlines import outlined_mask
from .regions import Region, Size
from .versions import versions


# Side of the square that closes gaps between neighbouring areas, px.
_DILATION = 5
# Class of all boxes if no labels are given.
_ANY = "artifact"
_COUNTS = ("found", "missed", "false")


def instance_detection(
    predictions: Sequence[Sequence[Sequence[float]] | None],
    references: Sequence[Sequence[Region]],
    sizes: Sequence[Size] | None,
    prediction_labels: Sequence[Sequence[str] | None] | None = None,
    reference_labels: Sequence[Sequence[str]] | None = None,
    bootstrap: Bootstrap | None = None,
) -> dict[str, Any]:
    """
    Score boxes against connected areas of artifacts, as X-AIGD's released instance metrics do.

    The true regions of an image and a class are one mask, which [`outlined_mask`] draws. Areas that a dilation by 5 ×
    5 px connects (8 neighbours) are one instance, of the pixels before the dilation. A box matches an instance if more
    than half of the **box** lies on it. A box may match several instances and an instance several boxes: precision is
    the matched instances over these and the boxes without a match. A box that reaches out of its image matches
    nothing.

    Args:
        predictions (`Sequence[Sequence[Box] | None]` of length `images`): Predicted boxes of each image,
            `(x_min, y_min, x_max, y_max)` in pixels with exclusive maxima; `None` for an answer that could not be
            parsed, which counts as no box, and in `parse_failure_rate`.
        references (`Sequence[Sequence[Region]]` of length `images`): True regions of each image: polygons, or other
            parts of a region as in [`region_mask`].
        sizes (`Sequence[tuple[int, int]]` of length `images`): Width and height of each image in pixels.
        prediction_labels, reference_labels (`Sequence[Sequence[str]]` of length `images`, *optional*): Class of each
            box and of each region; both or neither. If not given, all are of one class.
        bootstrap (`Bootstrap`, *optional*): Settings of the intervals.

    Returns:
        `dict[str, Any]`: `precision`, `recall`, `f1` and `parse_failure_rate`, in [0, 1] and each with an
        `_interval`; `counts`, the numbers of `found` and `missed` instances and of `false` boxes; with labels also
        `by_class`, a dictionary of the three scores and counts by class; `protocol`, `n` (images) and `versions`.

    Raises:
        ValueError: Lengths differ, there is no image, or a region cannot be read.

    Example: two triangles that nearly touch are one instance; the second box lies mostly beside it.

    ```python
    >>> regions = [(2, 2, 10, 2, 2, 10), (12, 2, 20, 2, 20, 10)]
    >>> result = instance_detection([[(2, 2, 6, 6), (12, 7, 19, 12)]], [regions], [(32, 32)])
    >>> result["counts"], result["recall"], result["precision"]
    ({'found': 1, 'missed': 0, 'false': 1}, 1.0, 0.5)

    ```
    """
    _check(predictions, references, sizes, prediction_labels, reference_labels)
    assert sizes is not None
    answered = [boxes or () for boxes in predictions]
    of_boxes = _labels(prediction_labels, answered)
    of_regions = _labels(reference_labels, references)
    names = sorted({name for of_image in (*of_boxes, *of_regions) for name in of_image}) or [_ANY]
    counts = np.zeros((len(references), len(names), len(_COUNTS)))
    for image, (boxes, regions, size) in enumerate(zip(answered, references, sizes, strict=True)):
        for index, name in enumerate(names):
            counts[image, index] = match_instances(
                [box for box, label in zip(boxes, of_boxes[image], strict=True) if label == name],
                [region for region, label in zip(regions, of_regions[image], strict=True) if label == name],
                size,
            )
    failed = [boxes is None for boxes in predictions]
    result = score_instances(counts.sum(axis=1), failed, bootstrap)
    if reference_labels is not None:
        totals = counts.sum(axis=0, keepdims=True)
        result["by_class"] = {
            name: {key: float(value[0]) for key, value in _scores(totals[:, index]).items()}
            | {"counts": dict(zip(_COUNTS, totals[0, index].astype(int).tolist(), strict=True))}
            for index, name in enumerate(names)
        }
    return result


def score_instances(counts: np.ndarray, failed: Sequence[bool], bootstrap: Bootstrap | None = None) -> dict[str, Any]:
    """
    Compute precision, recall and F1 of instances from the counts of each image.

    Args:
        counts (`np.ndarray` of shape `(images, 3)`): Found and missed instances and false boxes, as of
            [`match_instances`].
        failed (`Sequence[bool]` of length `images`): Whether an answer could not be parsed.
        bootstrap (`Bootstrap`, *optional*): Settings of the intervals.

    Returns:
        `dict[str, Any]`: As of [`instance_detection`], without `by_class`.
    """
    images = len(counts)
    statistics = np.column_stack([counts, failed])
    found, missed, false = (int(total) for total in np.asarray(counts).sum(axis=0))
    totals = {"precision": found + false, "recall": found + missed, "f1": found + missed, "parse_failure_rate": images}
    result = score_with_intervals(
        statistics, lambda sums: {**_scores(sums), "parse_failure_rate": sums[:, 3] / images}, bootstrap, totals
    )
    return {
        **result,
        "counts": {"found": found, "missed": missed, "false": false},
        "protocol": "x_aigd",
        "n": images,
        "versions": versions("pillow"),
    }


def match_instances(boxes: Sequence[Sequence[float]], regions: Sequence[Region], size: Size) -> tuple[int, int, int]:
    """
    Match the boxes of an image and a class with its instances.

    Args:
        boxes (`Sequence[Box]`): Predicted boxes.
        regions (`Sequence[Region]`): True regions.
        size (`tuple[int, int]`): Width and height of the image in pixels.

    Returns:
        `tuple[int, int, int]`: Found and missed instances, and boxes that match none.
    """
    mask = outlined_mask(regions, size)
    instances = np.where(mask, connected_components(_dilated(mask)), 0)
    total = int(instances.max(initial=0))
    found: set[int] = set()
    false = 0
    for box in boxes:
        matched = _matched(box, instances, size)
        found |= matched
        false += not matched
    return len(found), total - len(found), false


def connected_components(mask: np.ndarray) -> np.ndarray:
    """
    Number the areas of a mask whose pixels touch along sides or corners.

    Args:
        mask (`np.ndarray` of shape `(height, width)`, `bool`): The mask.

    Returns:
        `np.ndarray` of shape `(height, width)`, `int64`: Number of each pixel's area, from 1 in the order of their
        first rows, from the left in one row; 0 is the background.

    Example:

    ```python
    >>> connected_components(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]], dtype=bool))
    array([[1, 0, 0],
           [0, 1, 0],
           [0, 0, 0],
           [0, 0, 2]])

    ```
    """
    labels = np.zeros(mask.shape, dtype=np.int64)
    parents = [0]

    def root(label: int) -> int:
        while parents[label] != label:
            parents[label] = parents[parents[label]]
            label = parents[label]
        return label

    above: list[tuple[int, int, int]] = []
    for row, pixels in enumerate(mask):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], pixels, [False]])))
        runs = []
        for start, end in edges.reshape(-1, 2).tolist():
            touching = [label for first, last, label in above if first <= end and start <= last]
            label = len(parents)
            parents.append(label)
            for other in touching:
                # The smallest label of an area is that of its first run, so that roots keep the order of first rows.
                first_root, last_root = sorted((root(other), root(label)))
                parents[last_root] = first_root
            labels[row, start:end] = label
            runs.append((start, end, label))
        above = runs
    roots = np.array([root(label) for label in range(len(parents))])
    return np.unique(roots, return_inverse=True)[1][labels]


def _matched(box: Sequence[float], instances: np.ndarray, size: Size) -> set[int]:
    x_min, y_min, x_max, y_max = box
    if not (0 <= x_min < x_max <= size[0] and 0 <= y_min < y_max <= size[1]):
        return set()
    within = instances[int(y_min) : int(y_max), int(x_min) : int(x_max)]
    pixels = np.bincount(within.ravel())[1:]
    return {int(index) + 1 for index in np.flatnonzero(pixels > within.size / 2)}


def _dilated(mask: np.ndarray) -> np.ndarray:
    reach = _DILATION // 2
    for axis in (0, 1):
        padded = np.pad(mask, [(reach, reach) if axis == other else (0, 0) for other in (0, 1)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, _DILATION, axis=axis)
        mask = np.asarray(windows.any(axis=-1))
    return mask


def _scores(sums: np.ndarray) -> Mapping[str, np.ndarray]:
    found, missed, false = sums[:, 0], sums[:, 1], sums[:, 2]
    return {
        "precision": ratio(found, found + false),
        "recall": ratio(found, found + missed),
        "f1": ratio(2 * found, 2 * found + missed + false),
    }


def _labels(labels: Sequence[Sequence[str] | None] | None, items: Sequence[Sequence[Any]]) -> list[Sequence[str]]:
    if labels is None:
        return [[_ANY] * len(of_image) for of_image in items]
    return [of_image or () for of_image in labels]


def _check(
    predictions: Sequence[Sequence[Any] | None],
    references: Sequence[Sequence[Any]],
    sizes: Sequence[Size] | None,
    prediction_labels: Sequence[Sequence[str] | None] | None,
    reference_labels: Sequence[Sequence[str]] | None,
) -> None:
    if not len(references):
        raise ValueError("`references` must hold at least one image, got none")
    if sizes is None:
        raise ValueError("`sizes` must be the width and height of each image with the protocol 'x_aigd', got None")
    check_lengths(
        references,
        predictions=predictions,
        sizes=sizes,
        prediction_labels=prediction_labels,
        reference_labels=reference_labels,
    )
    if (prediction_labels is None) != (reference_labels is None):
        given = "`reference_labels`" if prediction_labels is None else "`prediction_labels`"
        raise ValueError(f"`prediction_labels` and `reference_labels` must be given together, got {given} alone")
    for name, labels, items in (
        ("prediction_labels", prediction_labels, predictions),
        ("reference_labels", reference_labels, references),
    ):
        for index, (of_image, of_items) in enumerate(zip(labels or (), items, strict=False)):
            if len(of_image or ()) != len(of_items or ()):
                raise ValueError(
                    f"`{name}` must hold one value for each of {len(of_items or ())} of image {index}, "
                    f"got {len(of_image or ())}"
                )
