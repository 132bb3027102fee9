"""COCO's average precision and recall of boxes, matched by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .instances import instance_detection
from .intervals import Bootstrap, honest_at_the_ends, interval_of, resamplings
from .lengths import check_lengths
from .versions import versions


Box = Sequence[float]

PROTOCOLS = ("coco", "x_aigd")

_SIZES = ("all", "small", "medium", "large")
_LIMITS = (1, 10, 100)
_AT_50, _AT_75 = 0, 5
# Class of all boxes if no labels are given.
_ANY = "artifact"


def box_detection(
    predictions: Sequence[Sequence[Box] | None],
    references: Sequence[Sequence[Box]],
    scores: Sequence[Sequence[float] | None] | None = None,
    prediction_labels: Sequence[Sequence[str] | None] | None = None,
    reference_labels: Sequence[Sequence[str]] | None = None,
    bootstrap: Bootstrap | None = None,
    protocol: str = "coco",
    sizes: Sequence[tuple[int, int]] | None = None,
) -> dict[str, Any]:
    """
    Compute COCO's twelve scores of boxes, or X-AIGD's scores of instances.

    Average precision (AP) is the mean over the IoU thresholds .50, .55 ... .95 and 101 levels of recall. Average
    recall (AR) is the mean over the same thresholds, with at most 1, 10 or 100 boxes per image.

    `COCOeval` of pycocotools matches the boxes once. Precision and recall are accumulated here by its rules, so that
    resampling images for the intervals takes seconds. Boxes of equal scores rank in the order of the images, as in
    `COCOeval`: **without scores, AP depends on that order**. AR does not.

    Args:
        predictions (`Sequence[Sequence[Box] | None]` of length `images`): Predicted boxes of each image,
            `(x_min, y_min, x_max, y_max)` in pixels with exclusive maxima. `None` stands for an answer that could not
            be parsed: it counts as no box, and in `parse_failure_rate`.
        references (`Sequence[Sequence[Box]]` of length `images`): True boxes of each image.
        scores (`Sequence[Sequence[float] | None]` of length `images`, *optional*): Confidence of each predicted box.
            If not given, all are 1.
        prediction_labels (`Sequence[Sequence[str] | None]` of length `images`, *optional*): Class of each predicted
            box. If not given, there is one class.
        reference_labels (`Sequence[Sequence[str]]` of length `images`, *optional*): Class of each true box. Required
            with `prediction_labels`.
        bootstrap (`Bootstrap`, *optional*): Settings of the intervals.
        protocol (`str`, *optional*, defaults to `"coco"`): `"coco"`, or `"x_aigd"`, under which references are
            polygons or other regions, scores are not used, and the result is that of [`instance_detection`].
        sizes (`Sequence[tuple[int, int]]` of length `images`, *optional*): Width and height of each image in pixels,
            for `"x_aigd"` alone.

    Returns:
        `dict[str, Any]`: `ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large` (true boxes of up to 32² px, of up
        to 96² px, and larger), `ar1`, `ar10`, `ar100`, `ar_small`, `ar_medium`, `ar_large`, in [0, 1], averaged over
        the classes that have a true box; NaN (-1 in `COCOeval`) without a true box; `parse_failure_rate`; with labels
        also `ap_by_class`. Each has an `_interval`. Further `protocol`, `n` (images) and `versions`. Under `"x_aigd"`
        instead `precision`, `recall`, `f1`, `counts` and, with labels, `by_class`.

    Raises:
        ValueError: Lengths differ, there is no image, a score is not finite, or a box is not four finite numbers with
            minima up to the maxima.

    Example: one of two true boxes is found with an IoU of .8, so no box is found at thresholds of .85 and above.
    Recall reaches 1/2, which covers 51 of the 101 levels.

    ```python
    >>> result = box_detection([[(0, 0, 8, 10)], []], [[(0, 0, 10, 10)], [(5, 5, 15, 15)]])
    >>> round(result["ap50"], 3), round(result["ap"], 3), round(result["ar100"], 3)
    (0.505, 0.353, 0.35)

    ```
    """
    bootstrap = bootstrap or Bootstrap()
    if protocol not in PROTOCOLS:
        raise ValueError(f"`protocol` must be one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    if protocol == "x_aigd":
        return instance_detection(predictions, references, sizes, prediction_labels, reference_labels, bootstrap)
    _check(predictions, references, scores, prediction_labels, reference_labels)
    images = len(references)
    answered = [_filled(boxes) for boxes in predictions]
    predicted_classes = _labels(prediction_labels, answered)
    true_classes = _labels(reference_labels, references)
    names = sorted({name for of_image in (*predicted_classes, *true_classes) for name in of_image}) or [_ANY]
    matches = _matches(answered, references, scores, predicted_classes, true_classes, names)
    failed = np.array([boxes is None for boxes in predictions], dtype=np.float64)

    def score(weights: np.ndarray) -> dict[str, float]:
        return {**_scores(matches, weights, names), "parse_failure_rate": float(weights @ failed / images)}

    result: dict[str, Any] = score(np.ones(images))
    result |= _intervals(score, list(result), images, bootstrap)
    if bootstrap.n_resamples:
        for name, total in {**_totals(matches, names), "parse_failure_rate": images}.items():
            interval = result[f"{name}_interval"]
            result[f"{name}_interval"] = honest_at_the_ends(result[name], interval, total, bootstrap)
    by_class = {name: result.pop(_key(name)) for name in names}
    intervals = {name: result.pop(f"{_key(name)}_interval", None) for name in names}
    if reference_labels is not None:
        result |= {"ap_by_class": by_class, "ap_by_class_interval": intervals}
    return {**result, "protocol": "coco", "n": images, "versions": versions("pycocotools")}


@dataclass(frozen=True, eq=False)
class _Matches:
    """
    Matches of the predicted boxes of one class with true boxes of one range of sizes.

    Attributes:
        image (`np.ndarray` of shape `(boxes,)`): Index of the image of each predicted box, by descending score.
        true, false (`np.ndarray` of shape `(thresholds, boxes)`): `bool`, whether a box is a true or a false positive.
            Neither for a box that is outside the range of sizes or matched to a true box outside it.
        found (`np.ndarray` of shape `(limits, thresholds, images)`): Number of true boxes found within the limit of
            predicted boxes per image.
        wanted (`np.ndarray` of shape `(images,)`): Number of true boxes.
    """

    image: np.ndarray
    true: np.ndarray
    false: np.ndarray
    found: np.ndarray
    wanted: np.ndarray

    def precision_recall(self, weights: np.ndarray, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Compute average precision and recall of a resampled dataset.

        Args:
            weights (`np.ndarray` of shape `(images,)`): How often each image is in the dataset.
            levels (`np.ndarray` of shape `(levels,)`): Levels of recall to average the precision over.

        Returns:
            `tuple[np.ndarray, np.ndarray]`: Average precision of shape `(thresholds,)` and recall of shape
            `(limits, thresholds)`, NaN without a true box.
        """
        wanted = weights @ self.wanted
        if not wanted:
            return np.full(len(self.true), np.nan), np.full(self.found.shape[:2], np.nan)
        true = np.cumsum(self.true * weights[self.image], axis=1)
        false = np.cumsum(self.false * weights[self.image], axis=1)
        # Precision at a recall is the best precision at this or any higher recall, 0 if it is not reached.
        precision = np.zeros((len(true), true.shape[1] + 1))
        precision[:, :-1] = true / (true + false + np.spacing(1))
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        recall = true / wanted
        averages = [row[np.searchsorted(at, levels)].mean() for row, at in zip(precision, recall, strict=True)]
        return np.array(averages), self.found @ weights / wanted


def _matches(
    predictions: Sequence[Sequence[Box]],
    references: Sequence[Sequence[Box]],
    scores: Sequence[Sequence[float] | None] | None,
    predicted_classes: Sequence[Sequence[str]],
    true_classes: Sequence[Sequence[str]],
    names: Sequence[str],
) -> list[list[_Matches]]:
    """Match boxes; the result holds a list for each class with an item for each of `_SIZES`."""
    images = len(references)
    with contextlib.redirect_stdout(io.StringIO()):  # COCOeval prints its progress
        evaluator = COCOeval(
            _coco(references, true_classes, names, None), _coco(predictions, predicted_classes, names, scores), "bbox"
        )
        evaluator.evaluate()
    results = iter(evaluator.evalImgs)
    return [[_of_images([next(results) for _ in range(images)]) for _ in _SIZES] for _ in names]


def _coco(
    boxes: Sequence[Sequence[Box]],
    classes: Sequence[Sequence[str]],
    names: Sequence[str],
    scores: Sequence[Sequence[float] | None] | None,
) -> COCO:
    annotations: list[dict[str, Any]] = []
    for image, (of_image, labels) in enumerate(zip(boxes, classes, strict=True)):
        confidences = [1.0] * len(of_image) if scores is None else _filled(scores[image])
        for (x_min, y_min, x_max, y_max), label, confidence in zip(of_image, labels, confidences, strict=True):
            width, height = float(x_max) - float(x_min), float(y_max) - float(y_min)
            annotations.append(
                {
                    # Ids start at 1, since COCOeval takes a match with id 0 for no match.
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": names.index(label),
                    "bbox": [float(x_min), float(y_min), width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "score": float(confidence),
                }
            )
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in range(len(boxes))],
        "annotations": annotations,
        "categories": [{"id": index, "name": name} for index, name in enumerate(names)],
    }
    coco.createIndex()
    return coco


def _of_images(results: Sequence[dict[str, Any] | None]) -> _Matches:
    """Collect `COCOeval`'s results of all images; the result of an image without any box is `None`."""
    thresholds, images = 10, len(results)
    found = np.zeros((len(_LIMITS), thresholds, images))
    wanted = np.zeros(images)
    image, confidence = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    true, false = [np.zeros((thresholds, 0), dtype=bool)], [np.zeros((thresholds, 0), dtype=bool)]
    for index, result in enumerate(results):
        if result is None:
            continue
        matched, counts = result["dtMatches"] > 0, result["dtIgnore"] == 0
        hits = matched & counts
        found[:, :, index] = [hits[:, :limit].sum(axis=1) for limit in _LIMITS]
        wanted[index] = np.count_nonzero(np.asarray(result["gtIgnore"]) == 0)
        image.append(np.full(hits.shape[1], index))
        confidence.append(np.asarray(result["dtScores"], dtype=np.float64))
        true.append(hits)
        false.append(~matched & counts)
    order = np.argsort(-np.concatenate(confidence), kind="stable")
    return _Matches(
        np.concatenate(image)[order],
        np.concatenate(true, axis=1)[:, order],
        np.concatenate(false, axis=1)[:, order],
        found,
        wanted,
    )


def _scores(matches: Sequence[Sequence[_Matches]], weights: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    levels = np.linspace(0, 1, 101)
    pairs = [[of_size.precision_recall(weights, levels) for of_size in of_class] for of_class in matches]
    ap = np.array([[precision for precision, _ in of_class] for of_class in pairs])  # (classes, sizes, thresholds)
    ar = np.array([[recall for _, recall in of_class] for of_class in pairs])  # (classes, sizes, limits, thresholds)
    return {
        "ap": _mean(ap[:, 0]),
        "ap50": _mean(ap[:, 0, _AT_50]),
        "ap75": _mean(ap[:, 0, _AT_75]),
        **{f"ap_{size}": _mean(ap[:, index]) for index, size in enumerate(_SIZES) if index},
        **{f"ar{limit}": _mean(ar[:, 0, index]) for index, limit in enumerate(_LIMITS)},
        **{f"ar_{size}": _mean(ar[:, index, -1]) for index, size in enumerate(_SIZES) if index},
        **{_key(name): _mean(ap[index, 0]) for index, name in enumerate(names)},
    }


def _totals(matches: Sequence[Sequence[_Matches]], names: Sequence[str]) -> dict[str, int]:
    """Count the images that each of [`_scores`] is about: those with a true box, of its size or class."""
    wanted = np.array([[of_size.wanted for of_size in of_class] for of_class in matches]) > 0
    of_sizes = wanted.any(axis=0).sum(axis=-1).tolist()
    return {
        **dict.fromkeys(("ap", "ap50", "ap75", *(f"ar{limit}" for limit in _LIMITS)), of_sizes[0]),
        **{f"{kind}_{size}": of_sizes[index] for kind in ("ap", "ar") for index, size in enumerate(_SIZES) if index},
        **{_key(name): int(wanted[index, 0].sum()) for index, name in enumerate(names)},
    }


def _key(name: str) -> str:
    return f"ap_of_{name}"


def _mean(values: np.ndarray) -> float:
    """Average the values that are not NaN, as they are for a class or size without a true box."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _labels(labels: Sequence[Sequence[str] | None] | None, boxes: Sequence[Sequence[Box]]) -> list[Sequence[str]]:
    if labels is None:
        return [[_ANY] * len(of_image) for of_image in boxes]
    return [_filled(of_image) for of_image in labels]


def _intervals(
    score: Callable[[np.ndarray], Mapping[str, float]], names: Sequence[str], images: int, bootstrap: Bootstrap
) -> dict[str, list[float]]:
    """Compute intervals of scores that, unlike those of [`score_with_intervals`], are no function of sums."""
    if not bootstrap.n_resamples:
        return {}
    resampled = [score(weights.astype(np.float64)) for weights in resamplings(images, bootstrap)]
    return {
        f"{name}_interval": interval_of(np.array([scores[name] for scores in resampled]), bootstrap) for name in names
    }


def _check(
    predictions: Sequence[Sequence[Box] | None],
    references: Sequence[Sequence[Box]],
    scores: Sequence[Sequence[float] | None] | None,
    prediction_labels: Sequence[Sequence[str] | None] | None,
    reference_labels: Sequence[Sequence[str]] | None,
) -> None:
    if not len(references):
        raise ValueError("`references` must hold at least one image, got none")
    check_lengths(references, predictions=predictions)
    if (prediction_labels is None) != (reference_labels is None):
        given = "`reference_labels`" if prediction_labels is None else "`prediction_labels`"
        raise ValueError(f"`prediction_labels` and `reference_labels` must be given together, got {given} alone")
    for name, images in (("predictions", predictions), ("references", references)):
        for index, boxes in enumerate(images):
            for box in _filled(boxes):
                _check_box(box, name, index)
    _check_one_per_box("scores", scores, predictions)
    for index, of_image in enumerate(_filled(scores)):
        if not np.isfinite(_filled(of_image)).all():
            raise ValueError(f"`scores` must be finite, got {of_image} for image {index}")
    _check_one_per_box("prediction_labels", prediction_labels, predictions)
    _check_one_per_box("reference_labels", reference_labels, references)


def _check_box(box: Box, argument: str, image: int) -> None:
    if len(box) != 4 or not np.isfinite(box).all() or box[0] > box[2] or box[1] > box[3]:
        raise ValueError(
            f"`{argument}` must be boxes (x_min, y_min, x_max, y_max) of finite numbers with minima up to the maxima, "
            f"got {tuple(box)} for image {image}"
        )


def _check_one_per_box(
    argument: str, values: Sequence[Sequence[Any] | None] | None, boxes: Sequence[Sequence[Box] | None]
) -> None:
    if values is None:
        return
    if len(values) != len(boxes):
        raise ValueError(f"`{argument}` must hold a list for each of {len(boxes)} images, got {len(values)}")
    for index, (of_image, boxes_of_image) in enumerate(zip(values, boxes, strict=True)):
        got, expected = len(_filled(of_image)), len(_filled(boxes_of_image))
        if got != expected:
            raise ValueError(
                f"`{argument}` must hold one value for each of the {expected} boxes of image {index}, got {got}"
            )


def _filled(values: Sequence[Any] | None) -> Sequence[Any]:
    return () if values is None else values
