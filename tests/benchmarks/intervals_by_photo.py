"""Intervals of statistics over pairs or images of which several are of one photo, and so are not independent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np


_RESAMPLES = 1000


def with_interval(groups: Sequence[str], statistic: Callable[[np.ndarray], float]) -> tuple[float, list[float]]:
    """
    Compute a statistic and its 95 % interval.

    Args:
        groups (`Sequence[str]`): Source photo of each item.
        statistic (`Callable`): Function of the indices of items.
    """
    members = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    blocks = [np.array(indices) for indices in members.values()]
    generator = np.random.default_rng(0)
    drawn = (generator.integers(0, len(blocks), len(blocks)) for _ in range(_RESAMPLES))
    values = [statistic(np.concatenate([blocks[index] for index in indices])) for indices in drawn]
    low, high = np.quantile(values, (0.025, 0.975))
    return statistic(np.arange(len(groups))), [float(low), float(high)]


def mean_of(values: Sequence[float]) -> Callable[[np.ndarray], float]:
    """Return the statistic of [`with_interval`] that is the mean of the items' values."""
    array = np.asarray(values, dtype=float)
    return lambda indices: float(array[indices].mean())
