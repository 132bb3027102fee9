"""Scores computed from sums over samples, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Bootstrap:
    """
    Settings of bootstrap intervals: percentiles of a score over resampled datasets of the same size.

    Attributes:
        n_resamples (`int`, *optional*, defaults to 1000): Number of datasets drawn for the bootstrap; 0 leaves out the
            intervals.
        confidence (`float`, *optional*, defaults to 0.95): Share of the resampled scores that an interval covers,
            between 0 and 1.
        seed (`int`, *optional*, defaults to 0): Seed of the bootstrap.
    """

    n_resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_resamples < 0:
            raise ValueError(f"`n_resamples` must be at least 0, got {self.n_resamples}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"`confidence` must lie between 0 and 1, got {self.confidence}")


def score_with_intervals(
    statistics: np.ndarray,
    scores: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    bootstrap: Bootstrap | None = None,
    totals: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """
    Compute scores that are functions of sums over samples (means, shares, F1, IoU of a dataset), with intervals.

    Args:
        statistics (`np.ndarray` of shape `(samples, statistics)`): Values to sum over the samples.
        scores (`Callable`): Function from sums of shape `(datasets, statistics)` to named scores of shape
            `(datasets,)`. An undefined score (0/0) is NaN.
        bootstrap (`Bootstrap`, *optional*): Settings of the intervals. If not given, the defaults of [`Bootstrap`].
        totals (`Mapping[str, float]`, *optional*): Number of samples that each score is a share of, for intervals that
            are honest at the ends; see [`honest_at_the_ends`].

    Returns:
        `dict[str, Any]`: For each score `name` its value, a `float`, and `name_interval`, `[low, high]`. Without
        intervals if `n_resamples` is 0.

    Raises:
        ValueError: There is no sample.

    Example:

    ```python
    >>> import numpy as np
    >>> hits = np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    >>> score_with_intervals(hits, lambda sums: {"accuracy": sums[:, 0] / sums[:, 1]})
    {'accuracy': 0.75, 'accuracy_interval': [0.25, 1.0]}

    ```
    """
    bootstrap = bootstrap or Bootstrap()
    if not len(statistics):
        raise ValueError("`predictions` must hold at least one sample, got none")
    statistics = np.asarray(statistics, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: dict[str, Any] = {
            name: float(values[0]) for name, values in scores(statistics.sum(axis=0, keepdims=True)).items()
        }
        if bootstrap.n_resamples:
            sums = np.array([weights @ statistics for weights in resamplings(len(statistics), bootstrap)])
            resampled = scores(sums)
            result |= {
                f"{name}_interval": honest_at_the_ends(
                    value, interval_of(resampled[name], bootstrap), (totals or {}).get(name, 0), bootstrap
                )
                for name, value in list(result.items())
            }
    return result


def resamplings(samples: int, bootstrap: Bootstrap) -> Iterator[np.ndarray]:
    """
    Draw resampled datasets, one at a time to save memory.

    Args:
        samples (`int`): Number of samples of the dataset.
        bootstrap (`Bootstrap`): Number of draws and their seed.

    Yields:
        `np.ndarray` of shape `(samples,)`, `int64`: How often each sample is in the resampled dataset.
    """
    generator = np.random.default_rng(bootstrap.seed)
    for _ in range(bootstrap.n_resamples):
        yield np.bincount(generator.integers(samples, size=samples), minlength=samples)


def interval_of(values: np.ndarray, bootstrap: Bootstrap) -> list[float]:
    """
    Compute the interval `[low, high]` of a score from its values over resampled datasets.

    Values that are NaN are left out; without any other value both bounds are NaN.
    """
    known = values[~np.isnan(values)]
    tail = (1 - bootstrap.confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail]) if known.size else (np.nan, np.nan)
    return [float(low), float(high)]


def honest_at_the_ends(value: float, interval: list[float], total: float, bootstrap: Bootstrap) -> list[float]:
    """
    Replace an interval without width at 0 or 1 by Wilson's interval for none or all of `total` samples.

    If all samples are right, all resampled datasets are, and percentiles give `[1, 1]`, whether there are 5 samples or
    5,000. Other intervals are returned as they are.

    Args:
        value (`float`): Score in [0, 1], a share of samples or a mean over them.
        interval (`list[float]`): Its bootstrap interval.
        total (`float`): Number of samples that count in the score; 0 if it is unknown.
        bootstrap (`Bootstrap`): Settings, of which `confidence` is used.

    Returns:
        `list[float]`: `[low, high]`.

    Example: 50 of 50 right.

    ```python
    >>> [round(bound, 3) for bound in honest_at_the_ends(1.0, [1.0, 1.0], 50, Bootstrap())]
    [0.929, 1.0]

    ```
    """
    if not total > 0 or value not in (0, 1) or interval != [value, value]:
        return interval
    squared = NormalDist().inv_cdf((1 + bootstrap.confidence) / 2) ** 2
    beyond = squared / (total + squared)
    return [1 - beyond, 1.0] if value == 1 else [0.0, beyond]


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide elementwise; the result is 0 where the denominator is 0, as in scikit-learn."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
