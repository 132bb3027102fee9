"""App of the metric's Space."""

import evaluate

from evaluate_metrics.space import launch


launch(
    evaluate.load("css.py"),
    {"predictions": ["a melted hand"], "references": ["a molten hand"]},
)
