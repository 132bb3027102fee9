"""Which classes of artifacts an image has, as a task with several labels (SynArtifact, Table 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from .intervals import Bootstrap, ratio, score_with_intervals
from .versions import versions


Accuracy = Literal["exact_match", "jaccard", "hamming"]
Average = Literal["samples", "micro", "macro"]


@dataclass(frozen=True)
class ArtifactClass:
    """
    A class of SynArtifact's taxonomy.

    Attributes:
        id (`int`): Its number in the question that lists all classes.
        name (`str`): As a model is asked to answer it.
        group (`str`): Where it stands in the taxonomy.
        aliases (`tuple[str, ...]`): Other names in the paper.
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
    The class that a line of an answer names, or `None`.

    Args:
        text (`str`): A name of a class in any case, with or without a number before it, and a full stop or a colon and
            an explanation after it.

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
    Scores sets of classes from SynArtifact's 13 and "No artifacts".

    The paper does not define its four scores. The defaults are the reading that its Table 2 supports. All accuracies
    over "All" are whole numbers of its 265 test images (53, 121, 96, 91), as only a yes or no for each image gives,
    and below precision and recall, as "exactly right" must be and "one class right" cannot be. The F1 of its third
    row is below both precision and recall, which a micro-average cannot be, and its first row is met by whole counts
    of images with averages over samples. The accuracy of a single class is (TP + TN) / 265, of counts that also give
    its precision and recall. The paper prints percentages; these scores are in [0, 1].

    Args:
        predictions (`Sequence[Sequence[str] | None]` of length `samples`): Classes answered, each as [`find_class`]
            reads it; no class at all says "No artifacts". `None` for an answer that could not be parsed: it names
            nothing, not even "No artifacts", and so has precision, recall and F1 of 0.
        references (`Sequence[Sequence[str]]` of length `samples`): True classes; no class says "No artifacts".
        accuracy (`str`, *optional*, defaults to `"exact_match"`): What `accuracy` is: the share of samples whose set
            is exactly right; the mean share that both sets have in common of what either has (`"jaccard"`); or the
            share of the 14 yes-or-no decisions that are right (`"hamming"`).
        average (`str`, *optional*, defaults to `"samples"`): Over what precision, recall and F1 are averaged:
            `"samples"`, `"macro"` (the 14 classes), or `"micro"` (of the summed counts).
        bootstrap (`Bootstrap`, *optional*): How intervals are made.

    Returns:
        `dict[str, Any]`: `accuracy`, `precision`, `recall`, `f1`, `parse_failure_rate` in [0, 1], each with an
        `_interval`; `by_class`, for each name `accuracy` of its yes-or-no decision, `precision`, `recall` and `f1`
        with intervals, and `support`, its number of true samples; `accuracy_definition`, `average`, `protocol`, `n`
        and `versions`. A ratio without any case is 0, as in scikit-learn.

    Raises:
        ValueError: lengths that differ, no sample, an unknown class or option.

    Example: the second answer has one of two classes; its precision is 1, its recall 1/2, its F1 2/3.

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
    if len(predictions) != len(references):
        raise ValueError(f"`predictions` must be as many as `references`, {len(references)}, got {len(predictions)}")
    predicted, true = _indicators(predictions, "predictions"), _indicators(references, "references")
    failed = np.array([labels is None for labels in predictions], dtype=bool)
    statistics = np.column_stack([_sample_statistics(predicted, true), failed, predicted & true, predicted, true])
    result = score_with_intervals(statistics, lambda sums: _scores(sums, len(true), accuracy, average), bootstrap)
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
    """Which of the classes each sample has: `bool` of shape `(samples, classes)`."""
    present = np.zeros((len(labels), len(CLASSES)), dtype=bool)
    for row, names in zip(present, labels, strict=True):
        if names is None and argument == "references":
            raise ValueError("`references` must be lists of classes, got None")
        for name in () if names is None else names or (NO_ARTIFACTS.name,):
            known = find_class(name)
            if known is None:
                allowed = ", ".join(repr(known.name) for known in CLASSES)
                raise ValueError(f"`{argument}` must be of {allowed}, got {name!r}")
            row[known.id - 1] = True
    return present


def _sample_statistics(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """The scores of each sample, in the order of `_SAMPLE_STATISTICS` without the last."""
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
    # (data_sets, classes) each
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


def _class_keys(class_id: int) -> list[tuple[str, str]]:
    """Under which key of all scores a score of a class is, and its own name."""
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
