"""Measures of sets of pictures: artifacts by the oracle, words that are met, diversity and sharpness."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
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
        kind of word, and `diversity` and `sharpness`, each as a share of that of the clean renders. `diversity` is
        `None` if no condition has two pictures.
    """
    verdicts = judge_all(pictures, words)
    rate = share([verdict.has_artifact for verdict in verdicts])
    return {
        "pictures": len(pictures),
        "artifact_rate": rate["share"],
        "artifact_rate_interval": rate["interval"],
        "by_type": {kind: share([kind in verdict.types for verdict in verdicts]) for kind in get_args(ArtifactType)},
        "conditions_met": conditions_met(verdicts),
        "diversity": _ratio(diversity(pictures, words), diversity(clean, words)),
        "sharpness": _ratio(sharpness(pictures), sharpness(clean)),
    }


def _ratio(value: float | None, reference: float | None) -> float | None:
    return None if value is None or not reference else round(value / reference, 4)


def conditions_met(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Count the pictures that show what was asked for, altogether and by kind of word."""
    met = {
        name: share([getattr(verdict.shown, name) == getattr(verdict.asked, name) for verdict in verdicts])
        for name in ("species", "colour", "background", "horns")
    }
    return {"all": share([verdict.meets_words for verdict in verdicts]), **met}


def diversity(pictures: np.ndarray, words: Sequence[Words]) -> float | None:
    """Compute the mean RMS difference in 0 to 255 between two pictures of one condition; `None` if none has two."""
    of_words = defaultdict(list)
    for picture, asked in zip(pictures, words, strict=True):
        of_words[asked].append(picture.astype(np.float32))
    pairs = [pair for those in of_words.values() for pair in combinations(those, 2)]
    return float(np.mean([np.sqrt(((one - other) ** 2).mean()) for one, other in pairs])) if pairs else None


def sharpness(pictures: np.ndarray) -> float:
    """Compute the mean absolute difference of neighbouring pixels' brightness, in 0 to 255."""
    grey = pictures.astype(np.float32).mean(3)
    return float((np.abs(np.diff(grey, axis=1)).mean() + np.abs(np.diff(grey, axis=2)).mean()) / 2)


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
        value, interval = with_interval([str(index) for index in range(len(before))], statistic)
        found |= {name: round(value, 4), f"{name}_interval": [round(limit, 4) for limit in interval]}
    return found
