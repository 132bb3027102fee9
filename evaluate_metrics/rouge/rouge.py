"""ROUGE F of explanations against their references, computed by `rouge_score`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from evaluate_metrics.functional.citations import ARTIAGENT  # From: artiagent
from evaluate_metrics.functional.descriptions import inputs_description  # From: artiagent
from evaluate_metrics.functional.intervals import Bootstrap  # From: artiagent
from evaluate_metrics.functional.rouge import rouge  # From: artiagent


_DESCRIPTION = """
ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum of explanations against their references: the mean F over samples, with Porter
stemming, as ArtiAgent reports ROUGE-L. Computed by Google's `rouge_score`, without downloads.
"""

_CITATION = (
    """\
@inproceedings{lin2004rouge, title={{ROUGE}: A Package for Automatic Evaluation of Summaries}, author={Lin, Chin-Yew},
  booktitle={Text Summarization Branches Out}, pages={74--81}, year={2004}}
"""
    + ARTIAGENT
)

_EXAMPLES = """
    >>> import evaluate
    >>> from evaluate_metrics import metric_path
    >>> metric = evaluate.load(metric_path("rouge"))
    >>> result = metric.compute(predictions=["the hand has fingers"], references=["the hand lacks finger"])
    >>> result["rougeL"], round(result["rouge2"], 3)
    (0.75, 0.333)
"""

_KWARGS_DESCRIPTION = inputs_description(rouge, _EXAMPLES)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class Rouge(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(
        self,
        predictions: Sequence[str | None],
        references: Sequence[str],
        use_stemmer: bool = True,
        n_resamples: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> dict[str, Any]:
        return rouge(predictions, references, use_stemmer, Bootstrap(n_resamples, confidence, seed))
