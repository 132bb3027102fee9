"""Accuracy, precision, recall and F1 of sets of artifact classes in SynArtifact's taxonomy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from evaluate_metrics.functional.citations import SYNARTIFACT  # From: artiagent
from evaluate_metrics.functional.classification import Accuracy, Average, artifact_classification  # From: artiagent
from evaluate_metrics.functional.descriptions import inputs_description  # From: artiagent
from evaluate_metrics.functional.intervals import Bootstrap  # From: artiagent


_DESCRIPTION = """
Scores of sets of artifact classes, of SynArtifact's 13 classes and "No artifacts": accuracy, precision, recall and F1
over all classes and for each class, and the rate of answers that could not be parsed. Scores are in [0, 1]; the paper
prints percentages.
"""

_CITATION = SYNARTIFACT

_EXAMPLES = """
    >>> import evaluate
    >>> from evaluate_metrics import metric_path
    >>> metric = evaluate.load(metric_path("artifact_classification"))
    >>> result = metric.compute(
    ...     predictions=[["No artifacts"], ["Distortion"], None, ["Localized blur"]],
    ...     references=[["No artifacts"], ["Distortion", "Omission"], ["Omission"], ["Localized blur"]],
    ... )
    >>> result["accuracy"], result["precision"], result["recall"], result["parse_failure_rate"]
    (0.5, 0.75, 0.625, 0.25)
    >>> result["by_class"]["No artifacts"]["f1"]
    1.0
"""

_KWARGS_DESCRIPTION = inputs_description(artifact_classification, _EXAMPLES)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ArtifactClassification(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": datasets.List(datasets.Value("string")),
                    "references": datasets.List(datasets.Value("string")),
                }
            ),
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[str] | None],
        references: Sequence[Sequence[str]],
        accuracy: Accuracy = "exact_match",
        average: Average = "samples",
        n_resamples: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> dict[str, Any]:
        return artifact_classification(
            predictions, references, accuracy, average, Bootstrap(n_resamples, confidence, seed)
        )
