"""App of the metric's Space."""

import evaluate

from evaluate_metrics.space import launch


launch(
    evaluate.load("artifact_map.py"),
    {"predictions": [[[0.5, 0.0]]], "references": [[[1.0, 0.0]]]},
)
