"""Files of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluate_metrics.functional.versions import versions

from ..detection.images import upright
from ..detection.pixel.detector import PixelDetector
from ..schema.generation import write_lines
from ..utils.files import write_json, write_text
from .folders import Compared
from .measures import ArtifactMeasure, Measure, MeasuredColumn
from .page import Picture, PictureRow, comparison_page
from .scores import CHOSEN_NOTE, Comparison


PAGE, TABLE, NUMBERS, VALUES = "compare.html", "compare.md", "compare.json", "values.jsonl"
"""Files that a comparison writes."""


def write_comparison(
    out: Path,
    comparison: Comparison,
    compared: Compared,
    columns: Sequence[MeasuredColumn],
    measures: Sequence[Measure],
    settings: Mapping[str, Any],
) -> None:
    """
    Write the page, the table, the numbers and the values of single images into a folder.

    Args:
        out (`Path`): The folder; created if it is missing.
        comparison (`Comparison`): Scores and remarks.
        compared (`Compared`): The folders.
        columns (`Sequence[MeasuredColumn]`): Values of single images.
        measures (`Sequence[Measure]`): What measured them.
        settings (`Mapping`): Settings, JSON-serialisable; `pictures` is how many images the page shows.
    """
    detectors = [measure.detector for measure in measures if isinstance(measure, ArtifactMeasure)]
    detector = detectors[0] if detectors else None
    # Of a detector's columns, the smoothed maximum tells the most of a single image.
    key = next((of for of in columns if of.column.name.endswith(".smoothed_maximum")), columns[0])
    rows = [_row(compared, index, key, detector) for index in worst_first(key)[: settings["pictures"]]]
    write_lines(out / VALUES, [_values(compared, index, columns) for index in range(len(compared.images))])
    write_json(
        out / NUMBERS,
        {
            "folders": list(comparison.names),
            "scores": [of.to_dict(comparison.names) for of in comparison.scores],
            "notes": list(comparison.notes),
            "settings": settings,
            "models": [measure.identity() for measure in measures],
            "versions": versions("torch", "transformers", "pillow"),
        },
    )
    page = comparison_page(comparison.names, comparison.scores, rows, key.column.words, comparison.notes)
    write_text(out / PAGE, page)
    write_text(out / TABLE, comparison_text(comparison))


def comparison_text(comparison: Comparison) -> str:
    """Write a comparison as Markdown."""
    notes = [CHOSEN_NOTE] if any(of.is_marked for of in comparison.scores) else []
    title = f"# {', '.join(comparison.names[1:])} against {comparison.names[0]}"
    return "\n\n".join([title, comparison.table(), *notes, *comparison.notes]) + "\n"


def worst_first(of: MeasuredColumn) -> list[int]:
    """Return the places of images, those first whose value worsened most from the first folder to any other."""
    first, *others = of.values

    def worsening(place: int) -> float:
        return max(of.column.worsening(other[place] - first[place]) for other in others)

    return sorted(range(len(first)), key=worsening, reverse=True)


def _row(compared: Compared, index: int, key: MeasuredColumn, detector: PixelDetector | None) -> PictureRow:
    image = compared.images[index]
    opened = [upright(path) for path in image.paths]
    maps = detector.maps(opened) if detector else [None] * len(opened)
    values = [of_folder[index] for of_folder in key.values]
    return PictureRow(image.name, image.prompt, tuple(map(Picture, opened, values, maps)))


def _values(compared: Compared, index: int, columns: Sequence[MeasuredColumn]) -> dict[str, Any]:
    image = compared.images[index]
    of_folders = {
        name: {of.column.name: of.values[place][index] for of in columns} for place, name in enumerate(compared.names)
    }
    return {"id": image.name, "prompt": image.prompt, "folders": of_folders}
