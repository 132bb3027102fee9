"""How well scores of images rank those with artifacts above those without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .intervals import Bootstrap, honest_at_the_ends, interval_of, resamplings
from .lengths import check_lengths
from .versions import versions


def image_ranking(
    predictions: Sequence[float], references: Sequence[int], bootstrap: Bootstrap | None = None
) -> dict[str, Any]:
    """
    Compute the area under the ROC curve: the share of pairs of an image with artifacts and one without in which the
    first has the higher score. Equal scores count half. No threshold is involved.

    Args:
        predictions (`Sequence[float]`): Score of each image; higher where artifacts are more likely.
        references (`Sequence[int]`): 1 for images with artifacts, 0 for others.
        bootstrap (`Bootstrap`, *optional*): Settings of the interval, by resampling images.

    Returns:
        `dict[str, Any]`: `auroc` in [0, 1], NaN if all images are of one kind; `auroc_interval`; `protocol`, `n` and
        `versions`.

    Raises:
        ValueError: Predictions and references differ in number, there are none, a reference is not 0 or 1, or a
            prediction is not finite.

    Example:

    ```python
    >>> image_ranking([0.9, 0.4, 0.4, 0.1], [1, 1, 0, 0])["auroc"]
    0.875

    ```
    """
    check_lengths(references, predictions=predictions)
    scores, labels = np.asarray(predictions, dtype=np.float64), np.asarray(references)
    if odd := sorted(set(labels.tolist()) - {0, 1}):
        raise ValueError(f"`references` must hold values among (0, 1), got {odd[0]!r}")
    if not np.isfinite(scores).all():
        raise ValueError(f"`predictions` must be finite, got {scores[~np.isfinite(scores)][0]}")
    # Rank of each image's score among the different scores.
    ranks = np.unique(scores, return_inverse=True)[1]
    bootstrap = bootstrap or Bootstrap()
    value = _auroc(ranks, labels, np.ones(len(labels)))
    result: dict[str, Any] = {"auroc": value}
    if bootstrap.n_resamples:
        resampled = np.array([_auroc(ranks, labels, weights) for weights in resamplings(len(labels), bootstrap)])
        total = int(min(labels.sum(), len(labels) - labels.sum()))
        result["auroc_interval"] = honest_at_the_ends(value, interval_of(resampled, bootstrap), total, bootstrap)
    return {**result, "protocol": "image", "n": len(labels), "versions": versions()}


def area_under_curve(negatives: np.ndarray, positives: np.ndarray) -> float:
    """
    Compute the area under the ROC curve from histograms; ties count half.

    Args:
        negatives, positives (`np.ndarray` of shape `(levels,)`): Number of negatives and positives at each level, from
            the lowest.

    Returns:
        `float`: In [0, 1]; NaN without negatives or without positives.

    Example:

    ```python
    >>> area_under_curve(np.array([1, 1]), np.array([0, 2]))
    0.75

    ```
    """
    pairs = negatives.sum() * positives.sum()
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2)).sum() / pairs) if pairs else float("nan")


def _auroc(ranks: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """Compute the area with each image counted as often as its weight says."""
    count = int(ranks.max()) + 1
    with_artifacts = np.bincount(ranks, weights=weights * labels, minlength=count)
    without = np.bincount(ranks, weights=weights * (1 - labels), minlength=count)
    return area_under_curve(without, with_artifacts)
