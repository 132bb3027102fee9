"""The report of a reward model as a table, for readers and for its card. It imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasets_script.utils.markdown import markdown_table


REPORT_FILE = "reward_report.json"
"""File of the report, beside the model."""

_SCORES = {"pair_accuracy": "pair accuracy", "cross_scene_auc": "cross-scene AUC"}


def report_table(report: Mapping[str, Any]) -> str:
    """Return a report of [`~training.reward.report.reward_report`] as a Markdown table, with intervals in brackets."""
    rows = [("all", report), *report["by_type"].items()]
    rows += [(f"control: {name.replace('_', ' ')}", scores) for name, scores in report["controls"].items()]
    return markdown_table(
        ["", "pairs", "photos", *_SCORES.values()],
        [(name, scores["n"], scores["n_photos"], *(_told(scores, key) for key in _SCORES)) for name, scores in rows],
    )


def _told(scores: Mapping[str, Any], name: str) -> str:
    value, interval = scores[name], scores.get(f"{name}_interval")
    if value is None:
        return "–"
    if interval is None or None in interval:
        return f"{value:.3f}"
    return f"{value:.3f} ({interval[0]:.3f} – {interval[1]:.3f})"
