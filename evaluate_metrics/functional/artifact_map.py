"""Artifact maps against true ones (DiffDoctor §4.1), and how often images show artifacts at all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .intervals import Bootstrap, score_with_intervals
from .regions import Map, check_lengths, heat_map
from .versions import versions


def artifact_map(
    predictions: Iterable[Map],
    references: Iterable[Map],
    threshold: float = 0.5,
    epsilon: float = 1e-6,
    bootstrap: Bootstrap | None = None,
) -> dict[str, Any]:
    """
    DiffDoctor's scores of an artifact detector; the lower the better.

    With P the true map and Q the predicted one: `mse` is the mean of (P − Q)²; `kl` that of P log(P / Q), which grows
    with what the detector misses; `kl_complement`, the paper's KL(1−), that of (1 − P) log((1 − P) / (1 − Q)), which
    grows with false alarms. The logarithm is natural and 0 log 0 is 0. Neither is a divergence of whole
    distributions, so both can be below 0.

    The paper gives the formula for one pair of maps with the number of pixels under it: scores are read as means over
    the pixels of an image and then over images. It prints them times 100. It does not say how Q = 0 is kept from an
    infinite score, and its own rows fit no single way; here Q is clipped to [`epsilon`, 1 − `epsilon`].

    Args:
        predictions (`Iterable` of maps): In [0, 1], as in [`heat_map`] without `masks`: arrays of shape
            `(height, width)`, greyscale images, or the bytes of one. They are read one at a time.
        references (`Iterable` of maps): The true ones, of the same sizes.
        threshold (`float`, *optional*, defaults to 0.5): For `artifact_frequency`.
        epsilon (`float`, *optional*, defaults to 1e-6): How near Q comes to 0 and 1 in the logarithms.
        bootstrap (`Bootstrap`, *optional*): How intervals are made.

    Returns:
        `dict[str, Any]`: `mse`, `kl` and `kl_complement`; `artifact_frequency`, the share of predicted maps whose
        maximum exceeds the threshold; each with an `_interval`; `protocol`, `threshold`, `epsilon`, `n`, `versions`.

    Raises:
        ValueError: maps that differ in number or size, or out of range; the message names the image.

    Example:

    ```python
    >>> import numpy as np
    >>> result = artifact_map([np.array([[0.5, 0.0]])], [np.array([[1.0, 0.0]])])
    >>> result["mse"], round(result["kl"], 4), round(result["kl_complement"], 4), result["artifact_frequency"]
    (0.125, 0.3466, 0.0, 0.0)

    ```
    """
    _check_threshold(threshold)
    if not 0 < epsilon < 0.5:
        raise ValueError(f"`epsilon` must lie between 0 and 0.5, got {epsilon}")
    check_lengths(references, predictions=predictions)
    statistics = []
    for index, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        try:
            statistics.append(_statistics(prediction, reference, threshold, epsilon))
        except ValueError as error:
            raise ValueError(f"image {index}: {error}") from error
    names = ("mse", "kl", "kl_complement", "artifact_frequency")
    result = _means(statistics, names, bootstrap)
    return {**result, "protocol": "diffdoctor", "threshold": threshold, "epsilon": epsilon, **_about(statistics)}


def artifact_frequency(
    predictions: Iterable[Map], threshold: float = 0.5, bootstrap: Bootstrap | None = None
) -> dict[str, Any]:
    """
    Share of images whose artifact map exceeds a threshold somewhere: DiffDoctor's measure of an image generator.

    Args:
        predictions (`Iterable` of maps): As in [`artifact_map`].
        threshold (`float`, defaults to 0.5): The confidence to exceed.
        bootstrap (`Bootstrap`, *optional*): How intervals are made.

    Returns:
        `dict[str, Any]`: `artifact_frequency` in [0, 1] and its `_interval`; `protocol`, `threshold`, `n`, `versions`.

    Raises:
        ValueError: a map that cannot be read.

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


def _statistics(prediction: Map, reference: Map, threshold: float, epsilon: float) -> list[float]:
    predicted, true = heat_map(prediction, masks=False), heat_map(reference)
    if predicted.shape != true.shape:
        sizes = ("{1}x{0}".format(*values.shape) for values in (true, predicted))
        raise ValueError("a prediction must be of its reference's size, {} px, got {} px".format(*sizes))
    clipped = np.clip(predicted, epsilon, 1 - epsilon)
    return [
        float(np.mean((true - predicted) ** 2)),
        _divergence(true, clipped),
        _divergence(1 - true, 1 - clipped),
        float(predicted.max() > threshold),
    ]


def _check_threshold(threshold: float) -> None:
    if not 0 <= threshold < 1:
        raise ValueError(f"`threshold` must lie in [0, 1), got {threshold}")


def _divergence(true: np.ndarray, predicted: np.ndarray) -> float:
    inside = true > 0
    return float(np.sum(true[inside] * np.log(true[inside] / predicted[inside])) / true.size)


def _means(statistics: list[list[float]], names: tuple[str, ...], bootstrap: Bootstrap | None) -> dict[str, Any]:
    with_count = np.array([[*row, 1.0] for row in statistics])
    return score_with_intervals(
        with_count, lambda sums: {name: sums[:, column] / sums[:, -1] for column, name in enumerate(names)}, bootstrap
    )


def _about(statistics: list[list[float]]) -> dict[str, Any]:
    return {"n": len(statistics), "versions": versions()}
