"""Scores of artifact maps (DiffDoctor §4.1): pixel errors against true maps, and the frequency of artifacts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .intervals import Bootstrap, score_with_intervals
from .lengths import check_lengths
from .regions import Map, heat_map
from .versions import versions


def artifact_map(
    predictions: Iterable[Map],
    references: Iterable[Map],
    threshold: float = 0.5,
    epsilon: float = 1e-6,
    bootstrap: Bootstrap | None = None,
) -> dict[str, Any]:
    """
    Compute DiffDoctor's scores of an artifact detector. Lower is better.

    P is the true map and Q the predicted one. `mse` is the mean of (P − Q)². `kl` is the mean of P log(P / Q), which
    grows with misses. `kl_complement`, the paper's KL(1−), is the mean of (1 − P) log((1 − P) / (1 − Q)), which grows
    with false alarms. Logarithms are natural and 0 log 0 is 0. Neither `kl` nor `kl_complement` is the divergence of
    a whole distribution, so both can be negative.

    The paper defines the scores for one pair of maps, divided by the number of pixels. Here each score is averaged
    over the pixels of an image, then over images. The paper prints the scores times 100. It does not say how it
    avoids an infinite score at Q = 0, and no single rule explains all its rows; here Q is clipped to
    [`epsilon`, 1 − `epsilon`].

    Args:
        predictions (`Iterable` of maps): Predicted maps in [0, 1], read one at a time: arrays of shape
            `(height, width)`, greyscale images, or the bytes of an image file. See [`heat_map`] with `masks=False`.
        references (`Iterable` of maps): True maps, each of the size of its prediction.
        threshold (`float`, *optional*, defaults to 0.5): Value in [0, 1) above which a pixel counts as an artifact in
            `artifact_frequency`.
        epsilon (`float`, *optional*, defaults to 1e-6): Distance that Q keeps from 0 and 1 in the logarithms, between
            0 and 0.5.
        bootstrap (`Bootstrap`, *optional*): Settings of the intervals.

    Returns:
        `dict[str, Any]`: `mse`, `kl` and `kl_complement`; `artifact_frequency`, the share of predicted maps whose
        maximum exceeds the threshold; each with an `_interval`; `protocol`, `threshold`, `epsilon`, `n`, `versions`.

    Raises:
        ValueError: Maps differ in number or size or are out of range (the message names the image), or `threshold` or
            `epsilon` is out of range.

    Example:

    ```python
    >>> import numpy as np
    >>> result = artifact_map([np.array([[0.5, 0.0]])], [np.array([[1.0, 0.0]])])
    >>> result["mse"], round(result["kl"], 4), round(result["kl_complement"], 4), result["artifact_frequency"]
    (0.125, 0.3466, 0.0, 0.0)

    ```
    """
    _check(threshold, epsilon)
    check_lengths(references, predictions=predictions)
    statistics = []
    for index, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        try:
            statistics.append(map_statistics(prediction, reference, threshold, epsilon))
        except ValueError as error:
            raise ValueError(f"image {index}: {error}") from error
    return score_map_statistics(statistics, threshold, epsilon, bootstrap)


def map_statistics(
    prediction: Map, reference: Map, threshold: float = 0.5, epsilon: float = 1e-6
) -> tuple[float, float, float, float]:
    """
    Compute DiffDoctor's scores of one image, which [`score_map_statistics`] averages.

    Args:
        prediction, reference (maps): Predicted and true map of one size, as in [`artifact_map`].
        threshold, epsilon (`float`, *optional*): See [`artifact_map`].

    Returns:
        `tuple[float, float, float, float]`: `mse`, `kl`, `kl_complement`, and 1 if the predicted maximum exceeds the
        threshold, else 0.

    Raises:
        ValueError: Maps differ in size or are out of range, or `threshold` or `epsilon` is out of range.
    """
    _check(threshold, epsilon)
    predicted, true = heat_map(prediction, masks=False), heat_map(reference)
    if predicted.shape != true.shape:
        sizes = ("{1}x{0}".format(*values.shape) for values in (true, predicted))
        raise ValueError("a prediction must have the size of its reference, {} px, got {} px".format(*sizes))
    clipped = np.clip(predicted, epsilon, 1 - epsilon)
    return (
        float(np.mean((true - predicted) ** 2)),
        _divergence(true, clipped),
        _divergence(1 - true, 1 - clipped),
        float(predicted.max() > threshold),
    )


def score_map_statistics(
    statistics: Sequence[Sequence[float]],
    threshold: float = 0.5,
    epsilon: float = 1e-6,
    bootstrap: Bootstrap | None = None,
) -> dict[str, Any]:
    """
    Average the scores of images.

    Args:
        statistics (`Sequence`): Output of [`map_statistics`] of each image, at least one.
        threshold, epsilon (`float`, *optional*): Those that it was computed with.
        bootstrap (`Bootstrap`, *optional*): Settings of the intervals.

    Returns:
        `dict[str, Any]`: As of [`artifact_map`].
    """
    names = ("mse", "kl", "kl_complement", "artifact_frequency")
    result = _means(statistics, names, bootstrap)
    return {**result, "protocol": "diffdoctor", "threshold": threshold, "epsilon": epsilon, **_about(statistics)}


def artifact_frequency(
    predictions: Iterable[Map], threshold: float = 0.5, bootstrap: Bootstrap | None = None
) -> dict[str, Any]:
    """
    Compute the share of images whose artifact map exceeds a threshold anywhere, DiffDoctor's measure of a generator.

    Args:
        predictions (`Iterable` of maps): Predicted maps, as in [`artifact_map`].
        threshold (`float`, *optional*, defaults to 0.5): Value in [0, 1) to exceed.
        bootstrap (`Bootstrap`, *optional*): Settings of the intervals.

    Returns:
        `dict[str, Any]`: `artifact_frequency` in [0, 1] and its `_interval`; `protocol`, `threshold`, `n`, `versions`.

    Raises:
        ValueError: A map cannot be read (the message names the image), or `threshold` is out of range.

    Example:

    ```python
    >>> import numpy as np
    >>> artifact_frequency([np.array([[0.2, 0.9]]), np.array([[0.2, 0.5]])])["artifact_frequency"]
    0.5

    ```
    """
    _check_threshold(threshold)
    statistics = []
    for index, prediction in enumerate(predictions):
        try:
            statistics.append([float(heat_map(prediction, masks=False).max() > threshold)])
        except ValueError as error:
            raise ValueError(f"image {index}: {error}") from error
    result = _means(statistics, ("artifact_frequency",), bootstrap)
    return {**result, "protocol": "diffdoctor", "threshold": threshold, **_about(statistics)}


def _check(threshold: float, epsilon: float) -> None:
    _check_threshold(threshold)
    if not 0 < epsilon < 0.5:
        raise ValueError(f"`epsilon` must lie between 0 and 0.5, got {epsilon}")


def _check_threshold(threshold: float) -> None:
    if not 0 <= threshold < 1:
        raise ValueError(f"`threshold` must lie in [0, 1), got {threshold}")


def _divergence(true: np.ndarray, predicted: np.ndarray) -> float:
    inside = true > 0
    return float(np.sum(true[inside] * np.log(true[inside] / predicted[inside])) / true.size)


def _means(
    statistics: Sequence[Sequence[float]], names: tuple[str, ...], bootstrap: Bootstrap | None
) -> dict[str, Any]:
    with_count = np.array([[*row, 1.0] for row in statistics])
    return score_with_intervals(
        with_count,
        lambda sums: {name: sums[:, column] / sums[:, -1] for column, name in enumerate(names)},
        bootstrap,
        # The other scores are errors, not shares of images.
        {"artifact_frequency": len(statistics)},
    )


def _about(statistics: Sequence[Sequence[float]]) -> dict[str, Any]:
    return {"n": len(statistics), "versions": versions()}
