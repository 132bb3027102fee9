"""Cosine similarity of the sentence embeddings of explanations and their references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from evaluate_metrics.functional.citations import ARTIAGENT  # From: artiagent
from evaluate_metrics.functional.css import DEFAULT_MODEL, css  # From: artiagent
from evaluate_metrics.functional.descriptions import inputs_description  # From: artiagent
from evaluate_metrics.functional.intervals import Bootstrap  # From: artiagent


_DESCRIPTION = """
Cosine similarity of sentence embeddings (CSS) of explanations and their references, as ArtiAgent reports it: the mean
over samples, with `sentence-transformers/paraphrase-MiniLM-L6-v2`. The model, its revision and its pooling are
returned with the score. A missing model raises an error; no other measure replaces it.
"""

_CITATION = (
    """\
@inproceedings{reimers2019sentence, title={Sentence-{BERT}: Sentence Embeddings using Siamese {BERT}-Networks},
  author={Reimers, Nils and Gurevych, Iryna}, booktitle={EMNLP}, year={2019}}
"""
    + ARTIAGENT
)

_EXAMPLES = """
    >>> import evaluate
    >>> from evaluate_metrics import metric_path
    >>> metric = evaluate.load(metric_path("css"))
    >>> result = metric.compute(predictions=["a melted hand"], references=["a melted hand"])  # doctest: +SKIP
    >>> round(result["css"], 3), result["pooling"]  # doctest: +SKIP
    (1.0, 'mean')
"""

_KWARGS_DESCRIPTION = inputs_description(css, _EXAMPLES)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class Css(evaluate.Metric):
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
        model: str = DEFAULT_MODEL,
        revision: str | None = None,
        device: str = "cpu",
        batch_size: int = 32,
        n_resamples: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> dict[str, Any]:
        bootstrap = Bootstrap(n_resamples, confidence, seed)
        return css(predictions, references, model, revision, device, batch_size, bootstrap)
