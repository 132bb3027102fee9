"""App of the metric's Space."""

import evaluate

from evaluate_metrics.space import launch


launch(
    evaluate.load("artifact_detection.py"),
    {"predictions": [0, 1, 1, None], "references": [0, 1, 0, 1]},
)
