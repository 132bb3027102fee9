"""Scores of image-level detection (ArtiAgent §8: accuracy and macro F1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .intervals import Bootstrap, ratio, score_with_intervals
from .lengths import check_lengths
from .versions import versions


# Columns of the confusion matrix: the answers.
_NO, _YES, _UNPARSABLE = range(3)


def artifact_detection(
    predictions: Sequence[int | None],
    references: Sequence[int],
    types: Sequence[Sequence[str]] | None = None,
    bootstrap: Bootstrap | None = None,
) -> dict[str, Any]:
    """
    Score yes/no answers to "are there artifacts?".

    An answer that could not be parsed is neither yes nor no. It is wrong for `accuracy`, a miss of the true class for
    the F1 scores (as scikit-learn scores a label left out of `labels`), and counted in `parse_failure_rate`. An F1 or
    a recall with denominator 0 is 0, as in scikit-learn.

    Args:
        predictions (`Sequence[int | None]` of length `samples`): 1 for artifacts, 0 for none, `None` for an answer
            that could not be parsed.
        references (`Sequence[int]` of length `samples`): 1 for artifacts, 0 for none.
        types (`Sequence[Sequence[str]]` of length `samples`, *optional*): Artifact types of each image, for
            `recall_by_type`.
        bootstrap (`Bootstrap`, *optional*): Settings of the intervals.

    Returns:
        `dict[str, Any]`: `accuracy`, `macro_f1` (mean of the F1 of both classes), `positive_f1`, `precision` and
        `recall` of "artifacts", and `parse_failure_rate`, all in [0, 1] and each with an `_interval`;
        `recall_by_type` and `recall_by_type_interval`, dictionaries; `confusion`, counts by truth and answer;
        `protocol`, `n` (samples) and `versions`.

    Raises:
        ValueError: Lengths differ, there is no sample, or a label is not among those above.

    Example:

    ```python
    >>> result = artifact_detection([0, 0, 0, 0], [0, 1, 0, 1])
    >>> result["accuracy"], round(result["macro_f1"], 3), result["positive_f1"]
    (0.5, 0.333, 0.0)

    ```
    """
    _check(predictions, references, types)
    answers = np.array([_UNPARSABLE if label is None else label for label in predictions], dtype=np.int64)
    truth = np.asarray(references, dtype=np.int64)
    names = sorted({name for of_image in types or () for name in of_image})
    statistics = np.zeros((len(truth), 6 + 2 * len(names)))
    statistics[np.arange(len(truth)), truth * 3 + answers] = 1
    for column, name in enumerate(names):
        present = np.array([name in of_image for of_image in types or ()]) & (truth == 1)
        statistics[:, 6 + 2 * column] = present & (answers == _YES)
        statistics[:, 7 + 2 * column] = present
    totals = _totals(statistics.sum(axis=0), names)
    result = score_with_intervals(statistics, lambda sums: _scores(sums, names), bootstrap, totals)
    result["recall_by_type"] = {name: result.pop(f"recall_of_{name}") for name in names}
    result["recall_by_type_interval"] = {name: result.pop(f"recall_of_{name}_interval", None) for name in names}
    confusion = statistics[:, :6].sum(axis=0).astype(int).tolist()
    result["confusion"] = {
        truth_name: dict(zip(("no", "yes", "unparsable"), confusion[start : start + 3], strict=True))
        for truth_name, start in (("clean", 0), ("artifacts", 3))
    }
    return {**result, "protocol": "artiagent", "n": len(truth), "versions": versions()}


def _scores(sums: np.ndarray, names: Sequence[str]) -> Mapping[str, np.ndarray]:
    confusion = sums[:, :6].reshape(-1, 2, 3)
    total = confusion.sum(axis=(1, 2))
    no_f1, yes_f1 = (_f1(confusion, label) for label in (_NO, _YES))
    hits = confusion[:, 1, _YES]
    by_type = {
        f"recall_of_{name}": ratio(sums[:, 6 + 2 * column], sums[:, 7 + 2 * column])
        for column, name in enumerate(names)
    }
    return {
        "accuracy": (confusion[:, 0, _NO] + hits) / total,
        "macro_f1": (no_f1 + yes_f1) / 2,
        "positive_f1": yes_f1,
        "precision": ratio(hits, confusion[:, :, _YES].sum(axis=1)),
        "recall": ratio(hits, confusion[:, 1].sum(axis=1)),
        "parse_failure_rate": confusion[:, :, _UNPARSABLE].sum(axis=1) / total,
        **by_type,
    }


def _totals(sums: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Count the images that each score is a share of; for macro F1 those of the rarer class, which bounds it most."""
    clean, flawed = sums[:3].sum(), sums[3:6].sum()
    said_yes = sums[_YES] + sums[3 + _YES]
    return {
        "accuracy": clean + flawed,
        "macro_f1": min(clean, flawed),
        "positive_f1": flawed,
        "precision": said_yes,
        "recall": flawed,
        "parse_failure_rate": clean + flawed,
        **{f"recall_of_{name}": sums[7 + 2 * column] for column, name in enumerate(names)},
    }


def _f1(confusion: np.ndarray, label: int) -> np.ndarray:
    answered, true = confusion[:, :, label].sum(axis=1), confusion[:, label].sum(axis=1)
    return ratio(2 * confusion[:, label, label], answered + true)


def _check(
    predictions: Sequence[int | None], references: Sequence[int], types: Sequence[Sequence[str]] | None
) -> None:
    check_lengths(references, predictions=predictions, types=types)
    for name, values, allowed in (("predictions", predictions, (0, 1, None)), ("references", references, (0, 1))):
        if odd := [value for value in values if value not in allowed]:
            raise ValueError(f"`{name}` must hold values among {allowed}, got {odd[0]!r}")
    # A string would pass as a list of its letters.
    if strange := [of_image for of_image in types or () if of_image is None or isinstance(of_image, str)]:
        raise ValueError(f"`types` must be a list of names for each image, got {strange[0]!r}")
