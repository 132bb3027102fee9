"""COCO's average precision and recall of boxes, matched by pycocotools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from evaluate_metrics.functional.box_detection import box_detection  # From: artiagent
from evaluate_metrics.functional.descriptions import inputs_description  # From: artiagent
from evaluate_metrics.functional.intervals import Bootstrap  # From: artiagent


_DESCRIPTION = """
COCO's average precision (AP, AP50, AP75, by size) and average recall (with 1, 10 and 100 boxes per image, by size) of
artifact boxes, of one or several classes; or precision, recall and F1 of X-AIGD's instances.
"""

_CITATION = """\
@inproceedings{lin2014microsoft, title={Microsoft {COCO}: Common Objects in Context},
  author={Lin, Tsung-Yi and others}, booktitle={ECCV}, year={2014}}"""

_EXAMPLES = """
    >>> import evaluate
    >>> from evaluate_metrics import metric_path
    >>> metric = evaluate.load(metric_path("box_detection"))
    >>> result = metric.compute(predictions=[[[0, 0, 8, 10]], []], references=[[[0, 0, 10, 10]], [[5, 5, 15, 15]]])
    >>> round(result["ap50"], 3), result["ar1"], result["ap_large"]
    (0.505, 0.35, nan)
"""

# Length of a true region by configuration: boxes have four numbers, polygons any.
_LENGTHS = {"default": 4, "boxes": 4, "polygons": -1}

_KWARGS_DESCRIPTION = inputs_description(box_detection, _EXAMPLES)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class BoxDetection(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in _LENGTHS:
            raise ValueError(f"`config_name` must be one of {', '.join(_LENGTHS)}, got {self.config_name!r}")
        number = datasets.Value("float64")
        boxes = datasets.List(datasets.List(number, length=4))
        references = datasets.List(datasets.List(number, length=_LENGTHS[self.config_name]))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": boxes, "references": references}),
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[Sequence[float]] | None],
        references: Sequence[Sequence[Sequence[float]]],
        scores: Sequence[Sequence[float] | None] | None = None,
        prediction_labels: Sequence[Sequence[str] | None] | None = None,
        reference_labels: Sequence[Sequence[str]] | None = None,
        protocol: str = "coco",
        sizes: Sequence[tuple[int, int]] | None = None,
        n_resamples: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> dict[str, Any]:
        return box_detection(
            predictions,
            references,
            scores,
            prediction_labels,
            reference_labels,
            Bootstrap(n_resamples, confidence, seed),
            protocol,
            sizes,
        )
