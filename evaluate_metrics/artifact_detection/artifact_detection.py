"""Accuracy and macro F1 of yes/no answers to "are there artifacts?", with unparsable answers reported separately."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from evaluate_metrics.functional.citations import ARTIAGENT  # From: artiagent
from evaluate_metrics.functional.descriptions import inputs_description  # From: artiagent
from evaluate_metrics.functional.detection import artifact_detection  # From: artiagent
from evaluate_metrics.functional.intervals import Bootstrap  # From: artiagent


_DESCRIPTION = """
Scores of yes/no answers to "does this image have artifacts?": accuracy and macro F1 as ArtiAgent reports them, F1,
precision and recall of "yes", recall by artifact type, and the rate of answers that could not be parsed, which count
as neither yes nor no.
"""

_CITATION = ARTIAGENT

_EXAMPLES = """
    >>> import evaluate
    >>> from evaluate_metrics import metric_path
    >>> metric = evaluate.load(metric_path("artifact_detection"))
    >>> result = metric.compute(predictions=[0, 1, 1, None], references=[0, 1, 0, 1])
    >>> result["accuracy"], result["parse_failure_rate"], result["confusion"]["artifacts"]
    (0.5, 0.25, {'no': 0, 'yes': 1, 'unparsable': 1})
"""

_KWARGS_DESCRIPTION = inputs_description(artifact_detection, _EXAMPLES)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ArtifactDetection(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            # Integer features would truncate a confidence of .7 to "no"; a float arrives and raises an error.
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
            ),
        )

    def _compute(
        self,
        predictions: Sequence[int | None],
        references: Sequence[int],
        types: Sequence[Sequence[str]] | None = None,
        n_resamples: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> dict[str, Any]:
        return artifact_detection(predictions, references, types, Bootstrap(n_resamples, confidence, seed))
