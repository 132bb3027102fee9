"""The files of a report of `artiagent evaluate`: the tables, the numbers as JSON, and pictures."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from evaluate_metrics.functional.regions import region_mask
from evaluate_metrics.functional.versions import versions

from ..figures.cases import Case, case_sheet, reliability_of_boxes, type_bars
from ..schema.image import BenchmarkImage
from ..schema.prediction import Prediction
from ..utils.files import replacing, write_json, write_text
from .scores import Evaluation, Located, ScoringSettings, predicted_region, truth_region


_CASES = 6


def write_report(
    path: Path,
    text: str,
    evaluation: Evaluation,
    recorded: Mapping[str, Any],
    predictions: Mapping[str, Prediction],
    images: Iterable[BenchmarkImage],
    settings: ScoringSettings,
) -> None:
    """
    Writes `report.md`, and beside it `report.json` and `report_*.png`.

    Args:
        path (`Path`): Of the Markdown file, which is written last.
        text (`str`): Its text but for the pictures.
        evaluation (`Evaluation`): The scores.
        recorded (`Mapping[str, Any]`): What was scored and how, JSON-serialisable.
        predictions (`Mapping[str, Prediction]`): What was scored, for the pictures of cases.
        images (`Iterable[BenchmarkImage]`): Of the benchmark, once more.
        settings (`ScoringSettings`): What the numbers mean.
    """
    pictures = {
        **_charts(evaluation),
        **_case_sheets(evaluation, predictions, images, settings),
    }
    for name, picture in pictures.items():
        with replacing(path.with_name(f"{path.stem}_{name}.png")) as temporary:
            picture.save(temporary, format="PNG")
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
    links = [f"![{name}]({path.stem}_{name}.png)" for name in pictures]
    write_text(path, "\n\n".join([text, *links]) + "\n")


def _charts(evaluation: Evaluation) -> dict[str, Image.Image]:
    charts = {}
    detection, located = evaluation.sections.get("detection", {}), "localization" in evaluation.sections
    if recalls := detection.get("recall_by_type"):
        ious = evaluation.ious_by_class() if located else {}
        charts["classes"] = type_bars(recalls, detection["recall_by_type_interval"], ious)
    # Always of single images: protocols over the whole data set have no number for one.
    if located:
        charts["reliability"] = reliability_of_boxes(
            [entry.iou for entry in evaluation.located],
            [entry.area for entry in evaluation.located],
        )
    return charts


def _case_sheets(
    evaluation: Evaluation,
    predictions: Mapping[str, Prediction],
    images: Iterable[BenchmarkImage],
    settings: ScoringSettings,
) -> dict[str, Image.Image]:
    if "localization" not in evaluation.sections:
        return {}
    # A wrong place shows more than none at all.
    ranked = sorted(evaluation.located, key=lambda entry: (entry.iou, not entry.is_predicted, entry.id))
    sheets = {"worst": ranked[:_CASES], "best": ranked[: -_CASES - 1 : -1]}
    wanted = {entry.id for entries in sheets.values() for entry in entries}
    chosen = {image.id: image for image in images if image.id in wanted}
    return {
        name: case_sheet(
            _cases(entries, chosen, predictions, settings), f"{name}: {len(entries)} of {len(ranked)} images, by IoU"
        )
        for name, entries in sheets.items()
    }


def _cases(
    entries: Sequence[Located],
    images: Mapping[str, BenchmarkImage],
    predictions: Mapping[str, Prediction],
    settings: ScoringSettings,
) -> list[Case]:
    cases = []
    for entry in entries:
        image, prediction = images[entry.id], predictions.get(entry.id) or Prediction(entry.id)
        with Image.open(io.BytesIO(image.image)) as picture:
            pixels = picture.convert("RGB")
        cases.append(
            Case(
                id=entry.id,
                image=pixels,
                truth=region_mask(truth_region(image, settings.truth_threshold), image.size),
                prediction=region_mask(predicted_region(prediction), image.size, settings.threshold),
                iou=entry.iou,
                truth_text=image.explanation,
                predicted_text=prediction.explanation or "",
            )
        )
    return cases
