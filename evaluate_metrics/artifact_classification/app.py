"""App of the metric's Space."""

import evaluate

from evaluate_metrics.space import launch


launch(
    evaluate.load("artifact_classification.py"),
    {"predictions": [["Distortion"]], "references": [["Distortion", "Omission"]]},
)
