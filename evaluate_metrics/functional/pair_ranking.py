"""How well scores rank clean images above artifact images: of the same photo, and of different photos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .intervals import Bootstrap, honest_at_the_ends, interval_of, resamplings
from .lengths import check_lengths
from .ranking import area_under_curve
from .versions import versions


def pair_ranking(
    clean: Sequence[float], artifact: Sequence[float], photos: Sequence[str], bootstrap: Bootstrap | None = None
) -> dict[str, Any]:
    """
    Compute how often a clean image scores higher than an artifact image: within pairs, and across photos. Equal
    scores count half. Within pairs everything but the artifact is equal; across photos the score must not depend on
    what they show, which is what search and guidance need of a reward.

    Args:
        clean, artifact (`Sequence[float]`): Score of the clean and of the artifact image of each pair; higher for
            fewer artifacts.
        photos (`Sequence[str]`): Photo of each pair. Pairs of one photo are resampled together, and are not compared
            across.
        bootstrap (`Bootstrap`, *optional*): Settings of the intervals, by resampling photos.

    Returns:
        `dict[str, Any]`: `pair_accuracy` in [0, 1]; `cross_scene_auc`, the share of all pairs of a clean and an
        artifact image of different photos in which the clean one scores higher, NaN with one photo; `…_interval` of
        both; `n`, `n_photos` and `versions`.

    Raises:
        ValueError: The arguments differ in length, there are no pairs, or a score is not finite.

    Example:

    ```python
    >>> scores = pair_ranking([0.9, 0.4], [0.5, 0.1], ["cat.jpg", "dog.jpg"])
    >>> scores["pair_accuracy"], scores["cross_scene_auc"]
    (1.0, 0.5)

    ```
    """
    check_lengths(clean, artifact=artifact, photos=photos)
    high, low = np.asarray(clean, dtype=np.float64), np.asarray(artifact, dtype=np.float64)
    if not (np.isfinite(high).all() and np.isfinite(low).all()):
        raise ValueError("`clean` and `artifact` must hold finite scores, got others")
    bootstrap = bootstrap or Bootstrap()
    groups = np.unique(np.asarray(photos), return_inverse=True)[1]
    table = _Table(high, low, groups)
    values = table.scores(np.ones(table.count, dtype=np.int64))
    result: dict[str, Any] = {"pair_accuracy": values[0], "cross_scene_auc": values[1]}
    if bootstrap.n_resamples:
        resampled = np.array([table.scores(weights) for weights in resamplings(table.count, bootstrap)])
        for index, name in enumerate(list(result)):
            found = interval_of(resampled[:, index], bootstrap)
            result[f"{name}_interval"] = honest_at_the_ends(result[name], found, table.count, bootstrap)
    return {**result, "n": len(high), "n_photos": table.count, "versions": versions()}


class _Table:
    """
    Scores in a form that is resampled fast.

    Args:
        clean, artifact (`np.ndarray` of shape `(pairs,)`): Scores.
        groups (`np.ndarray` of shape `(pairs,)`): Number of each pair's photo, from 0.
    """

    def __init__(self, clean: np.ndarray, artifact: np.ndarray, groups: np.ndarray) -> None:
        self.groups, self.count = groups, int(groups.max()) + 1
        self.wins = _wins(clean, artifact)
        levels = np.unique(np.concatenate([clean, artifact]), return_inverse=True)[1]
        self.levels = int(levels.max()) + 1
        self.clean, self.artifact = levels[: len(clean)], levels[len(clean) :]
        # Wins and comparisons within each photo, which do not count across photos.
        within = list(_within(clean, artifact, groups, self.count))
        self.wins_within, self.pairs_within = np.array(within, dtype=np.float64).T

    def scores(self, weights: np.ndarray) -> tuple[float, float]:
        """Compute accuracy and area with each photo counted as often as its weight says."""
        of_pairs = weights[self.groups]
        clean, artifact = (
            np.bincount(levels, weights=of_pairs, minlength=self.levels) for levels in (self.clean, self.artifact)
        )
        total = float(of_pairs.sum()) ** 2
        squared = weights.astype(np.float64) ** 2
        across = total - float(squared @ self.pairs_within)
        wins = area_under_curve(artifact, clean) * total - float(squared @ self.wins_within)
        return float(np.average(self.wins, weights=of_pairs)), wins / across if across else float("nan")


def _within(clean: np.ndarray, artifact: np.ndarray, groups: np.ndarray, count: int) -> Iterator[tuple[float, float]]:
    order = np.argsort(groups, kind="stable")
    for members in np.split(order, np.cumsum(np.bincount(groups, minlength=count))[:-1]):
        yield float(_wins(clean[members][:, None], artifact[members][None]).sum()), float(len(members) ** 2)


def _wins(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    return (high > low) + (high == low) / 2
