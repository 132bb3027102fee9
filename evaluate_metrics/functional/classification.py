"""Multi-label classification of artifacts into SynArtifact's classes (SynArtifact, Table 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from .intervals import Bootstrap, ratio, score_with_intervals
from .lengths import check_lengths
from .versions import versions


Accuracy = Literal["exact_match", "jaccard", "hamming"]
Average = Literal["samples", "micro", "macro"]


@dataclass(frozen=True)
class ArtifactClass:
    """
    Class of SynArtifact's taxonomy.

    Attributes:
        id (`int`): Number of the class in the question that lists all classes.
        name (`str`): Name that a model is asked to answer.
        group (`str`): Group of the taxonomy that the class belongs to.
        aliases (`tuple[str, ...]`): Other names of the class in the paper.
    """

    id: int
    name: str
    group: str
    aliases: tuple[str, ...] = ()


CLASSES = (
    ArtifactClass(1, "Illegible letters", "object-aware"),
    ArtifactClass(2, "Awkward facial expression", "object-aware"),
    ArtifactClass(
        3, "Distorted and deformed components", "abnormal components", ("distorted and deformed", "distortion")
    ),
    ArtifactClass(4, "Duplicated components", "abnormal components", ("duplicated", "duplication")),
    ArtifactClass(5, "Omitted components", "abnormal components", ("omitted", "omission")),
    ArtifactClass(6, "Chromatic irregularity", "attribute mis-binding"),
    ArtifactClass(7, "Abnormal non-spatial relationship", "attribute mis-binding"),
    ArtifactClass(8, "Abnormal spatial relationship", "attribute mis-binding"),
    ArtifactClass(9, "Abnormal texture", "attribute mis-binding"),
    ArtifactClass(10, "Luminance discrepancy", "lighting"),
    ArtifactClass(11, "Impractical luminosity", "lighting"),
    ArtifactClass(12, "Localized blur", "others"),
    ArtifactClass(13, "Other artifacts", "others", ("other",)),
    ArtifactClass(14, "No artifacts", "no artifacts"),
)
NO_ARTIFACTS = CLASSES[-1]

_BY_NAME = {name.casefold(): known for known in CLASSES for name in (known.name, *known.aliases)}
_SAMPLE_STATISTICS = ("exact_match", "jaccard", "hamming", "precision", "recall", "f1", "parse_failure_rate")


def find_class(text: str) -> ArtifactClass | None:
    """
    Find the class that a line of an answer names.

    Args:
        text (`str`): Name or alias of a class in upper or lower case. A number may precede it; a full stop, or a colon
            and an explanation, may follow.

    Returns:
        `ArtifactClass` or `None`: The class, or `None` if the text names no class.

    Example:

    ```python
    >>> find_class("5. Other artifacts: The gown is out of frame.").id
    13
    >>> find_class("a strange hand") is None
    True

    ```
    """
    return _BY_NAME.get(text.partition(":")[0].lstrip("0123456789.)*- ").rstrip(". ").casefold())


def artifact_classification(
    predictions: Sequence[Sequence[str] | None],
    references: Sequence[Sequence[str]],
    accuracy: Accuracy = "exact_match",
    average: Average = "samples",
    bootstrap: Bootstrap | None = None,
) -> dict[str, Any]:
    """
    Score sets of classes, of SynArtifact's 13 classes and "No artifacts".

    The paper does not define its four scores. The defaults follow from its Table 2. Each accuracy over "All" is a
    whole number of its 265 test images (53, 121, 96, 91), so an image is either right or wrong. It is below precision
    and recall, so right means exactly right: with "one class right" accuracy would be at least as high. The F1 of
    the third row is below both precision and recall, which rules out a micro-average, and averages over samples
    explain the first row with whole counts of images. The accuracy of a single class is (TP + TN) / 265, from counts
    that also give its precision and recall. The paper prints percentages; these scores are in [0, 1].

    Args:
        predictions (`Sequence[Sequence[str] | None]` of length `samples`): Predicted classes of each sample, as read
            by [`find_class`]; an empty list means "No artifacts". `None` stands for an answer that could not be
            parsed: it names no class, not even "No artifacts", and has precision, recall and F1 of 0.
        references (`Sequence[Sequence[str]]` of length `samples`): True classes of each sample; an empty list means
            "No artifacts".
        accuracy (`str`, *optional*, defaults to `"exact_match"`): Definition of `accuracy`: `"exact_match"`, the share
            of samples whose set is exactly right; `"jaccard"`, the mean ratio of intersection to union of both sets;
            or `"hamming"`, the share of correct decisions over the 14 classes.
        average (`str`, *optional*, defaults to `"samples"`): Average of precision, recall and F1: `"samples"`,
            `"macro"` (over the 14 classes) or `"micro"` (from the summed counts).
        bootstrap (`Bootstrap`, *optional*): Settings of the intervals.

    Returns:
        `dict[str, Any]`: `accuracy`, `precision`, `recall`, `f1` and `parse_failure_rate` in [0, 1], each with an
        `_interval`; `by_class`, which holds for each name the `accuracy` of its yes-or-no decision, `precision`,
        `recall` and `f1` with intervals, and `support`, its number of true samples; `accuracy_definition`, `average`,
        `protocol`, `n` (samples) and `versions`. A ratio with denominator 0 is 0, as in scikit-learn.

    Raises:
        ValueError: Lengths differ, there is no sample, or a class or an option is unknown.

    Example: the second answer has one of two classes, so its precision is 1, its recall 1/2 and its F1 2/3.

    ```python
    >>> result = artifact_classification(
    ...     [["No artifacts"], ["Distortion"], None], [[], ["Distortion", "Omission"], ["Omission"]]
    ... )
    >>> [round(result[name], 3) for name in ("accuracy", "precision", "recall", "f1", "parse_failure_rate")]
    [0.333, 0.667, 0.5, 0.556, 0.333]
    >>> result["by_class"]["Omitted components"]["support"]
    2

    ```
    """
    _check_options(accuracy, average)
    check_lengths(references, predictions=predictions)
    predicted, true = _indicators(predictions, "predictions"), _indicators(references, "references")
    failed = np.array([labels is None for labels in predictions], dtype=bool)
    statistics = np.column_stack([_sample_statistics(predicted, true), failed, predicted & true, predicted, true])
    result = score_with_intervals(
        statistics, lambda sums: _scores(sums, len(true), accuracy, average), bootstrap, _totals(predicted, true)
    )
    result["by_class"] = {
        known.name: {
            **{name: result.pop(key) for key, name in _class_keys(known.id) if key in result},
            "support": int(true[:, known.id - 1].sum()),
        }
        for known in CLASSES
    }
    settings = {"accuracy_definition": accuracy, "average": average, "protocol": "synartifact"}
    return {**result, **settings, "n": len(true), "versions": versions()}


def _indicators(labels: Sequence[Sequence[str] | None], argument: str) -> np.ndarray:
    """Mark the classes of each sample: `bool` of shape `(samples, classes)`."""
    present = np.zeros((len(labels), len(CLASSES)), dtype=bool)
    for row, names in zip(present, labels, strict=True):
        if names is None and argument == "references":
            raise ValueError("`references` must be lists of classes, got None")
        for name in () if names is None else names or (NO_ARTIFACTS.name,):
            known = find_class(name)
            if known is None:
                allowed = ", ".join(repr(known.name) for known in CLASSES)
                raise ValueError(f"`{argument}` must hold classes among {allowed}, got {name!r}")
            row[known.id - 1] = True
    return present


def _sample_statistics(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Score each sample, in the order of `_SAMPLE_STATISTICS` without the last."""
    hits, answered, wanted = (labels.sum(axis=1, dtype=np.float64) for labels in (predicted & true, predicted, true))
    return np.column_stack(
        [
            (predicted == true).all(axis=1),
            hits / (answered + wanted - hits),
            (predicted == true).mean(axis=1),
            ratio(hits, answered),
            hits / wanted,
            2 * hits / (answered + wanted),
        ]
    )


def _scores(sums: np.ndarray, n: int, accuracy: Accuracy, average: Average) -> Mapping[str, np.ndarray]:
    samples = {name: sums[:, column] / n for column, name in enumerate(_SAMPLE_STATISTICS)}
    # each of shape (datasets, classes)
    hits, answered, wanted = np.split(sums[:, len(_SAMPLE_STATISTICS) :], 3, axis=1)
    by_class = {**_precision_recall_f1(hits, answered, wanted), "accuracy": 1 - (answered + wanted - 2 * hits) / n}
    if average == "samples":
        averaged = {name: samples[name] for name in ("precision", "recall", "f1")}
    elif average == "micro":
        averaged = _precision_recall_f1(*(counts.sum(axis=1) for counts in (hits, answered, wanted)))
    else:
        averaged = {name: by_class[name].mean(axis=1) for name in ("precision", "recall", "f1")}
    return {
        "accuracy": samples[accuracy],
        **averaged,
        "parse_failure_rate": samples["parse_failure_rate"],
        **{f"{known.id}_{name}": values[:, known.id - 1] for known in CLASSES for name, values in by_class.items()},
    }


def _totals(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Count the samples that each score is a share of."""
    n = float(len(true))
    answered, wanted = predicted.sum(axis=0).tolist(), true.sum(axis=0).tolist()
    by_class = {
        f"{known.id}_{name}": total
        for known, said, support in zip(CLASSES, answered, wanted, strict=True)
        for name, total in (("accuracy", n), ("precision", said), ("recall", support), ("f1", support))
    }
    return {**dict.fromkeys(("accuracy", "precision", "recall", "f1", "parse_failure_rate"), n), **by_class}


def _class_keys(class_id: int) -> list[tuple[str, str]]:
    """Return the keys of a class's scores among all scores, each with the name of the score."""
    names = [name + end for name in ("accuracy", "precision", "recall", "f1") for end in ("", "_interval")]
    return [(f"{class_id}_{name}", name) for name in names]


def _precision_recall_f1(hits: np.ndarray, answered: np.ndarray, wanted: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "precision": ratio(hits, answered),
        "recall": ratio(hits, wanted),
        "f1": ratio(2 * hits, answered + wanted),
    }


def _check_options(accuracy: str, average: str) -> None:
    for name, value, allowed in (("accuracy", accuracy, get_args(Accuracy)), ("average", average, get_args(Average))):
        if value not in allowed:
            raise ValueError(f"`{name}` must be one of {', '.join(allowed)}, got {value!r}")
