"""Page of a metric's Space: takes the arguments of `compute` as JSON and shows the result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import evaluate


def launch(metric: evaluate.EvaluationModule, example: dict[str, Any]) -> None:
    """
    Serve the page of a metric.

    Replaces `evaluate.utils.launch_gradio_widget`, which needs Gradio 3 and NumPy 1.

    Args:
        metric (`evaluate.EvaluationModule`): The metric of the Space.
        example (`dict[str, Any]`): JSON-serialisable arguments of `compute`, shown when the page opens.
    """
    import gradio as gr  # comes with the Space's `sdk`

    def compute(arguments: str) -> dict[str, Any]:
        return metric.compute(**json.loads(arguments))

    gr.Interface(
        fn=compute,
        inputs=gr.Code(json.dumps(example, indent=2), language="json", label="arguments of compute"),
        outputs=gr.JSON(label=metric.name),
        title=f"Metric: {metric.name}",
        article=Path("README.md").read_text(encoding="utf-8").split("---\n", 2)[2],
    ).launch(show_error=True)
