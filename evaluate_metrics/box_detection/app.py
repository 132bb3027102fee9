"""App of the metric's Space."""

import evaluate

from evaluate_metrics.space import launch


launch(
    evaluate.load("box_detection.py"),
    {"predictions": [[[0, 0, 8, 10]], []], "references": [[[0, 0, 10, 10]], [[5, 5, 15, 15]]]},
)
