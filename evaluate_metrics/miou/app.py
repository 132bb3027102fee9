"""App of the metric's Space."""

import evaluate

from evaluate_metrics.space import launch


launch(
    evaluate.load("miou.py"),
    {"predictions": [[[0, 0, 2, 2]]], "references": [[[1, 0, 3, 2]]], "sizes": [[4, 4]], "protocol": "artiagent"},
)
