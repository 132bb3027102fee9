"""Markdown tables of scores, in the layout of the papers."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from ..utils.markdown import markdown_table
from .published import PublishedTable
from .scores import Evaluation, ScoringSettings


_LISTED_FAILURES = 20

# Readable names of the scores, in the order they are shown.
SCORE_NAMES = {
    "detection.accuracy": "detection accuracy",
    "detection.macro_f1": "detection macro F1",
    "detection.positive_f1": "detection F1 of \u201cartifacts\u201d",
    "detection.precision": "detection precision",
    "detection.recall": "detection recall",
    "detection.parse_failure_rate": "answers that could not be parsed",
    "ranking.auroc": "image AUROC",
    "localization.miou": "mIoU",
    "localization.f1": "pixel F1",
    "localization.precision": "pixel precision",
    "localization.recall": "pixel recall",
    "instances.precision": "instance precision",
    "instances.recall": "instance recall",
    "instances.f1": "instance F1",
    "artifact_map.mse": "map MSE",
    "artifact_map.kl": "map KL",
    "artifact_map.kl_complement": "map KL(1\u2212)",
    "artifact_map.artifact_frequency": "artifact frequency of maps",
    "rouge.rougeL": "ROUGE-L",
    "css.css": "CSS",
    "classification.accuracy": "class accuracy",
    "classification.precision": "class precision",
    "classification.recall": "class recall",
    "classification.f1": "class F1",
}
# Columns of ArtiAgent's table, for benchmarks without published rows.
PAPER_COLUMNS = {
    "detection.accuracy": "Acc",
    "detection.macro_f1": "F1",
    "localization.miou": "mIoU",
    "localization.f1": "F1 (pixel)",
    "rouge.rougeL": "ROUGE-L",
    "css.css": "CSS",
}


def evaluation_text(
    evaluation: Evaluation, model: str, benchmark: str, published: PublishedTable | None, settings: ScoringSettings
) -> str:
    """
    Write an evaluation as Markdown: the paper's table, all scores with intervals, scores by class, and failures.

    Args:
        evaluation (`Evaluation`): Scores.
        model (`str`): Name of the model, for its row.
        benchmark (`str`): Name of the benchmark.
        published (`PublishedTable`, *optional*): Published scores on the benchmark.
        settings (`ScoringSettings`): Settings of the scoring.
    """
    parts = [
        f"# {model} on {published.title if published else benchmark}",
        paper_table(evaluation, model, benchmark, published),
    ]
    if published:
        parts.append(f"Published rows: {published.source}; protocol `{published.protocol}`. {published.note}".strip())
    if published and "localization.miou" in published.columns and published.protocol != settings.protocol:
        parts.append(f"**Not comparable**: mIoU and pixel F1 of the last row use protocol `{settings.protocol}`.")
    parts += ["## Scores", score_table(evaluation)]
    if settings.transform:
        parts.append(f"Regions were compared after the transform `{settings.transform}`.")
    if unread := evaluation.score("rouge.n_unread"):
        parts.append(
            f"**ROUGE is no measure here**: it reads the letters a to z and digits alone, and {unread} of "
            f"{evaluation.score('rouge.n')} references are mostly in another script; use CSS with a model for it."
        )
    if foreign := evaluation.unscored_classes:
        parts.append(
            f"Classes are not scored, because the benchmark has some that SynArtifact has not ({', '.join(foreign)})."
        )
    if table := class_table(evaluation):
        parts += ["## By class of artifact", table]
    if evaluation.failures:
        shown = [f"- `{name}`: {reason}" for name, reason in evaluation.failures[:_LISTED_FAILURES]]
        if more := len(evaluation.failures) - len(shown):
            shown.append(f"- and {more} more")
        parts += [f"## {len(evaluation.failures)} answers that could not be used", "\n".join(shown)]
    return "\n\n".join(parts)


def paper_table(evaluation: Evaluation, model: str, benchmark: str, published: PublishedTable | None) -> str:
    """
    Write the paper's table with the published rows, and the model as the last row.

    Args:
        evaluation (`Evaluation`): Scores.
        model (`str`): Name of the model, for its row.
        benchmark (`str`): Name of the benchmark.
        published (`PublishedTable`, *optional*): Published scores on the benchmark.
    """
    columns = published.columns if published else PAPER_COLUMNS
    rows = [[name, *map(_number, values)] for name, values in (published.rows if published else {}).items()]
    rows.append([f"**{model}**", *(_number(evaluation.score(name)) for name in columns)])
    return markdown_table([published.title if published else benchmark, *columns.values()], rows, aligned=True)


def score_table(evaluation: Evaluation) -> str:
    """Write a table of all scores, with interval, number of samples and protocol."""
    rows = []
    for name, words in SCORE_NAMES.items():
        value = evaluation.score(name)
        if value is None:
            continue
        section = evaluation.sections[name.partition(".")[0]]
        low_high = evaluation.score(f"{name}_interval")
        n = section.get("n_scored", section["n"])
        rows.append([words, _number(value), _interval(low_high), str(n), str(section["protocol"])])
    return markdown_table(["score", "value", "95 % interval", "n", "protocol"], rows, aligned=True)


def class_table(evaluation: Evaluation) -> str:
    """Write a table of recall and mean IoU by class of artifact; empty if the benchmark has no classes."""
    recalls: dict[str, float] = evaluation.score("detection.recall_by_type") or {}
    ious = evaluation.ious_by_class() if "localization" in evaluation.sections else {}
    rows = [
        [
            name,
            _number(recalls.get(name)),
            _number(fmean(ious[name]) if name in ious else None),
            str(len(ious[name])) if name in ious else "–",
        ]
        for name in sorted({*recalls, *ious})
    ]
    return markdown_table(["class", "recall", "mean IoU", "images"], rows, aligned=True) if rows else ""


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.3f}"


def _interval(low_high: Any) -> str:
    return "–" if low_high is None else f"{low_high[0]:.3f} – {low_high[1]:.3f}"
