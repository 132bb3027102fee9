"""The order in which the units of several sources are trained on, fixed by weights and a seed before training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datasets_script.utils.seeds import derive_seed


def interleave(weights: Sequence[float], length: int) -> np.ndarray:
    """
    Distribute places among sources by weight, evenly: each place goes to the source that is furthest behind its share,
    so that none is ever ahead by a whole place. A longer training begins like a shorter one.

    Args:
        weights (`Sequence[float]`): Weight of each source, above 0.
        length (`int`): Number of places.

    Returns:
        `np.ndarray` of shape `(length,)`, `int64`: Index of the source of each place.
    """
    shares = np.asarray(weights, dtype=np.float64) / np.sum(weights)
    owed, sources = np.zeros(len(shares)), np.empty(length, dtype=np.int64)
    for place in range(length):
        owed += shares
        sources[place] = owed.argmax()
        owed[sources[place]] -= 1
    return sources


def draw_order(count: int, draws: int, seed: int, frequencies: np.ndarray | None = None) -> np.ndarray:
    """
    Draw units of one source: pass after pass in random order.

    Args:
        count (`int`): Number of units.
        draws (`int`): Number of draws.
        seed (`int`): Seed. More draws begin like fewer.
        frequencies (`np.ndarray` of shape `(count,)`, *optional*): How often each unit occurs in a pass, on average.
            Defaults to once.

    Returns:
        `np.ndarray` of shape `(draws,)`, `int64`: Indices of units.
    """
    rng = np.random.default_rng(seed)
    drawn: list[np.ndarray] = []
    while sum(map(len, drawn)) < draws:
        times = np.ones(count, dtype=np.int64) if frequencies is None else _times(frequencies, rng)
        drawn.append(rng.permutation(np.repeat(np.arange(count), times)))
    return np.concatenate(drawn)[:draws] if drawn else np.empty(0, dtype=np.int64)


def plan(
    counts: Sequence[int],
    weights: Sequence[float],
    length: int,
    seed: int,
    frequencies: Sequence[np.ndarray | None] | None = None,
) -> np.ndarray:
    """
    Draw the units of a training.

    Args:
        counts (`Sequence[int]`): Number of units of each source.
        weights (`Sequence[float]`): Weight of each source.
        length (`int`): Number of units to draw.
        seed (`int`): Seed of the training.
        frequencies (`Sequence`, *optional*): For each source as in [`draw_order`].

    Returns:
        `np.ndarray` of shape `(length, 2)`, `int64`: Source and unit of each place.
    """
    sources = interleave(weights, length)
    units = np.empty(length, dtype=np.int64)
    for index, count in enumerate(counts):
        places = np.flatnonzero(sources == index)
        often = frequencies[index] if frequencies is not None else None
        units[places] = draw_order(count, len(places), derive_seed(seed, f"order:{index}"), often)
    return np.stack([sources, units], axis=1)


def _times(frequencies: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Round frequencies to whole numbers, up with the probability of their fraction; at least one unit occurs."""
    times = np.floor(frequencies + rng.random(len(frequencies))).astype(np.int64)
    if not times.any():
        times[frequencies.argmax()] = 1
    return times
