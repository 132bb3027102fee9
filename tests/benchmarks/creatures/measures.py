"""Measures of sets of pictures: artifacts by the oracle, words that are met, diversity and sharpness."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, get_args

import numpy as np

from tests.benchmarks.creatures.oracle import ArtifactType, Verdict, judge
from tests.benchmarks.creatures.shares import share
from tests.benchmarks.creatures.words import Words
from tests.benchmarks.intervals_by_photo import with_interval


def judge_all(pictures: np.ndarray, words: Sequence[Words]) -> list[Verdict]:
    """Let the oracle judge pictures of shape `(batch, 64, 64, 3)`, `uint8`."""
    return [judge(picture, asked) for picture, asked in zip(pictures, words, strict=True)]


def figures_of(pictures: np.ndarray, words: Sequence[Words], clean: np.ndarray) -> dict[str, Any]:
    """
    Measure pictures.

    Args:
        pictures (`np.ndarray` of shape `(batch, 64, 64, 3)`, `uint8`): Pictures.
        words (`Sequence[Words]`): What each was asked to show.
        clean (`np.ndarray` of the same shape): Clean renders of the same conditions.

    Returns:
        `dict[str, Any]`: `artifact_rate` with its interval, the same `by_type`, `conditions_met` as a whole and by
        kind of word, and `diversity` and `sharpness`, each as a share of that of the clean renders, with 95 %
        bootstrap intervals. `diversity` is `None` if no condition has two pictures.
    """
    verdicts = judge_all(pictures, words)
    rate = share([verdict.has_artifact for verdict in verdicts])
    return {
        "pictures": len(pictures),
        "artifact_rate": rate["share"],
        "artifact_rate_interval": rate["interval"],
        "by_type": {kind: share([kind in verdict.types for verdict in verdicts]) for kind in get_args(ArtifactType)},
        "conditions_met": conditions_met(verdicts),
        **_told("diversity", _diversity_ratio(pictures, clean, words)),
        **_told("sharpness", _sharpness_ratio(pictures, clean)),
    }


def conditions_met(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Count the pictures that show what was asked for, altogether and by kind of word."""
    met = {
        name: share([getattr(verdict.shown, name) == getattr(verdict.asked, name) for verdict in verdicts])
        for name in ("species", "colour", "background", "horns")
    }
    return {"all": share([verdict.meets_words for verdict in verdicts]), **met}


def diversity(pictures: np.ndarray, words: Sequence[Words]) -> float | None:
    """Compute the mean RMS difference in 0 to 255 between two pictures of one condition; `None` if none has two."""
    differences = [value for values in differences_of(pictures, words).values() for value in values]
    return float(np.mean(differences)) if differences else None


def differences_of(pictures: np.ndarray, words: Sequence[Words]) -> dict[Words, list[float]]:
    """Compute the RMS difference in 0 to 255 of every two pictures of a condition, for conditions with two or more."""
    of_words = defaultdict(list)
    for picture, asked in zip(pictures, words, strict=True):
        of_words[asked].append(picture.astype(np.float32))
    return {
        asked: [float(np.sqrt(((one - other) ** 2).mean())) for one, other in combinations(those, 2)]
        for asked, those in of_words.items()
        if len(those) > 1
    }


def sharpness(pictures: np.ndarray) -> float:
    """Compute the mean absolute difference of neighbouring pixels' brightness, in 0 to 255."""
    return float(sharpnesses(pictures).mean())


def sharpnesses(pictures: np.ndarray) -> np.ndarray:
    """Compute [`sharpness`] of each picture, of shape `(batch,)`."""
    grey = pictures.astype(np.float32).mean(3)
    down, across = (np.abs(np.diff(grey, axis=axis)).mean((1, 2)) for axis in (1, 2))
    return np.asarray((down + across) / 2, dtype=float)


Estimate = tuple[float, list[float]]
"""A value and its 95 % interval."""


def _told(name: str, estimate: Estimate | None) -> dict[str, Any]:
    """Return a value and its interval under their names, rounded; `None` for both if there is none."""
    if estimate is None:
        return {name: None, f"{name}_interval": None}
    value, interval = estimate
    return {name: round(value, 4), f"{name}_interval": [round(limit, 4) for limit in interval]}


def _diversity_ratio(pictures: np.ndarray, reference: np.ndarray, words: Sequence[Words]) -> Estimate | None:
    """
    Divide the diversity of pictures by that of others of the same conditions; conditions are resampled, as pairs of
    pictures of one are not independent.
    """
    found, wanted = differences_of(pictures, words), differences_of(reference, words)
    sums = np.array([[sum(found[asked]), sum(wanted[asked])] for asked in found])
    if not len(sums) or not sums[:, 1].all():
        return None

    def ratio(indices: np.ndarray) -> float:
        own, others = sums[indices].sum(0)
        return float(own / others)

    return with_interval([asked.prompt for asked in found], ratio)


def _sharpness_ratio(pictures: np.ndarray, reference: np.ndarray) -> Estimate | None:
    """Divide the sharpness of pictures by that of others of the same conditions; pictures are resampled with them."""
    both = np.stack([sharpnesses(pictures), sharpnesses(reference)])
    if not both[1].all():
        return None

    def ratio(indices: np.ndarray) -> float:
        own, others = both[:, indices].mean(1)
        return float(own / others)

    return with_interval([str(index) for index in range(len(pictures))], ratio)


def changes(before: np.ndarray, after: np.ndarray, words: Sequence[Words]) -> Mapping[str, Any]:
    """
    Compare diversity and sharpness of pictures that were drawn of the same prompts and seeds.

    Args:
        before, after (`np.ndarray` of shape `(batch, 64, 64, 3)`, `uint8`): The pictures.
        words (`Sequence[Words]`): What each was asked to show.

    Returns:
        `dict[str, Any]`: `diversity_change` and `sharpness_change`, relative, each with a paired 95 % bootstrap
        interval; `None` where there is nothing to divide by.
    """
    ratios = {"diversity": _diversity_ratio(after, before, words), "sharpness": _sharpness_ratio(after, before)}
    found: dict[str, Any] = {}
    for name, estimate in ratios.items():
        moved = estimate and (estimate[0] - 1, [limit - 1 for limit in estimate[1]])
        found |= _told(f"{name}_change", moved)
    return found


def compared(before: Sequence[Verdict], after: Sequence[Verdict]) -> dict[str, Any]:
    """
    Compare pictures that were drawn of the same prompts and seeds.

    Args:
        before, after (`Sequence[Verdict]`): The oracle's verdicts.

    Returns:
        `dict[str, Any]`: `relative_reduction` of the artifact rate, and `conditions_met_change`, a difference of
        shares, each with a paired 95 % bootstrap interval.
    """
    flawed, met = (
        np.array([[getattr(verdict, name) for verdict in verdicts] for verdicts in (before, after)], float)
        for name in ("has_artifact", "meets_words")
    )

    def reduction(indices: np.ndarray) -> float:
        base, left = flawed[:, indices].mean(1)
        return float((base - left) / base) if base else 0.0

    def change(indices: np.ndarray) -> float:
        return float(np.subtract(*met[::-1, indices].mean(1)))

    found: dict[str, Any] = {}
    for name, statistic in {"relative_reduction": reduction, "conditions_met_change": change}.items():
        found |= _told(name, with_interval([str(index) for index in range(len(before))], statistic))
    return found
