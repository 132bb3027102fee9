"""App of the metric's Space."""

import evaluate

from evaluate_metrics.space import launch


launch(
    evaluate.load("rouge.py"),
    {"predictions": ["the hand has fingers"], "references": ["the hand lacks finger"]},
)
