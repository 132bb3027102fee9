"""Scores with their bootstrap intervals, from sums over samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Bootstrap:
    """
    How intervals are made: percentiles of a score over resampled datasets of the same size.

    Attributes:
        n_resamples (`int`, *optional*, defaults to 1000): Datasets to draw for the bootstrap; 0 leaves intervals out.
        confidence (`float`, *optional*, defaults to 0.95): Share of them that an interval holds.
        seed (`int`, *optional*, defaults to 0): Of the draws.
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
) -> dict[str, Any]:
    """
    Scores that are functions of sums over samples (means, shares, F1, IoU of a dataset), and their intervals.

    Args:
        statistics (`np.ndarray` of shape `(samples, statistics)`): What is summed.
        scores (`Callable`): From sums of shape `(data_sets, statistics)` to named scores of shape `(data_sets,)`. A
            score without a value (0/0) is NaN.
        bootstrap (`Bootstrap`, *optional*): How intervals are made; the defaults of [`Bootstrap`] without it.

    Returns:
        `dict[str, Any]`: For each score `name` its value, a `float`, and `name_interval`, `[low, high]`; without
        intervals where `n_resamples` is 0.

    Raises:
        ValueError: no sample.

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
            result |= {f"{name}_interval": interval_of(resampled[name], bootstrap) for name in list(result)}
    return result


def resamplings(samples: int, bootstrap: Bootstrap) -> Iterator[np.ndarray]:
    """
    How often each sample is in a resampled dataset, `n_resamples` times; one at a time, since all of them would be
    `n_resamples` numbers for each sample. Shape `(samples,)`, `int64`.
    """
    generator = np.random.default_rng(bootstrap.seed)
    for _ in range(bootstrap.n_resamples):
        yield np.bincount(generator.integers(samples, size=samples), minlength=samples)


def interval_of(values: np.ndarray, bootstrap: Bootstrap) -> list[float]:
    """
    `[low, high]` of a score's values over resampled datasets. A dataset in which the score has no value (NaN) says
    nothing of its spread.
    """
    known = values[~np.isnan(values)]
    tail = (1 - bootstrap.confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail]) if known.size else (np.nan, np.nan)
    return [float(low), float(high)]


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Shares; 0 where there is no case, as in scikit-learn."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
