"""Report of `artiagent evaluate`: the tables as Markdown, the numbers as JSON, and images."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from evaluate_metrics.functional.regions import region_mask
from evaluate_metrics.functional.transforms import TRANSFORMS
from evaluate_metrics.functional.versions import versions

from ..figures.cases import Case, case_sheet, reliability_of_boxes, type_bars
from ..utils.files import replacing, write_json, write_text
from .protocol_masks import compared
from .scores import Evaluation, ScoredImage, ScoringSettings


CASES = 6
"""Worst, and best, images that a report shows."""


def write_evaluation(
    path: Path,
    text: str,
    evaluation: Evaluation,
    recorded: Mapping[str, Any],
    settings: ScoringSettings,
) -> None:
    """
    Write `report.md`, and next to it `report.json` and `report_*.png`.

    Args:
        path (`Path`): Markdown file, written last.
        text (`str`): Text of the Markdown file, without the images.
        evaluation (`Evaluation`): Scores, with the worst and best images.
        recorded (`Mapping[str, Any]`): Predictions and settings that were scored, JSON-serialisable.
        settings (`ScoringSettings`): Settings of the scoring.
    """
    images = {**_charts(evaluation), **_case_sheets(evaluation, settings)}
    for name, image in images.items():
        with replacing(path.with_name(f"{path.stem}_{name}.png")) as temporary:
            image.save(temporary, format="PNG")
    write_json(
        path.with_suffix(".json"),
        {
            **recorded,
            "versions": versions("datasets", "pillow", "pycocotools"),
            "n": evaluation.n,
            "scores": evaluation.sections,
            "failures": evaluation.failures,
        },
    )
    links = [f"![{name}]({path.stem}_{name}.png)" for name in images]
    write_text(path, "\n\n".join([text, *links]) + "\n")


def _charts(evaluation: Evaluation) -> dict[str, Image.Image]:
    charts = {}
    detection, located = evaluation.sections.get("detection", {}), "localization" in evaluation.sections
    if recalls := detection.get("recall_by_type"):
        ious = evaluation.ious_by_class() if located else {}
        charts["classes"] = type_bars(recalls, detection["recall_by_type_interval"], ious)
    # IoU of single images, since some protocols only define it for the whole dataset.
    if located:
        charts["reliability"] = reliability_of_boxes(
            [entry.iou for entry in evaluation.located],
            [entry.area for entry in evaluation.located],
        )
    return charts


def _case_sheets(evaluation: Evaluation, settings: ScoringSettings) -> dict[str, Image.Image]:
    if "localization" not in evaluation.sections:
        return {}
    total = len(evaluation.located)
    return {
        name: case_sheet(
            [_case(scored, settings) for scored in cases], f"{name}: {len(cases)} of {total} images, by IoU"
        )
        for name, cases in (("worst", evaluation.worst), ("best", evaluation.best))
        if cases
    }


def _case(scored: ScoredImage, settings: ScoringSettings) -> Case:
    image, prediction = scored.image, scored.prediction
    with Image.open(io.BytesIO(image.image)) as opened:
        pixels = opened.convert("RGB")
    if settings.transform is not None:
        pixels = TRANSFORMS[settings.transform].view(pixels)
    regions = compared(image, prediction, settings)
    resize = settings.resize == "prediction"
    return Case(
        id=image.id,
        image=pixels,
        truth=region_mask(regions.truth, regions.size),
        prediction=region_mask(regions.prediction, regions.size, settings.threshold, resize=resize),
        iou=scored.located.iou,
        truth_text=image.explanation,
        predicted_text=prediction.explanation or "",
    )
