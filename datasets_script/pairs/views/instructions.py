"""One row an image and task: the questions of `artiagent predict`, and the right answers in the form they ask for."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

from PIL import Image

from ...detection.questions import Task, request
from ...schema.boxes import Box
from ...vlm.conventions import BoxFormat
from .stored_rows import SIDES, image_id, image_size
from .vqa import Turn, to_messages


TASKS: tuple[Task, ...] = ("detection", "localization", "explanation")

_CLEAN_ANSWERS: dict[Task, str] = {"detection": "No", "localization": "[]", "explanation": "No artifacts."}


def instruction_rows(row: dict[str, Any], box_format: BoxFormat) -> Iterator[dict[str, Any]]:
    """
    The tasks about the clean and the flawed image of a pair as rows of [`~datasets_script.pairs.views.vqa.FEATURES`].
    A task whose answer is not known for the flawed image, for want of a text, is left out for the clean one too: the
    share of clean images tells nothing.

    Args:
        row (`dict`): A row of `PAIR_FEATURES` as it is stored.
        box_format (`BoxFormat`): How boxes are written.
    """
    answers = {"clean": _CLEAN_ANSWERS, "flawed": _flawed_answers(row, box_format)}
    for side in SIDES:
        for task in TASKS:
            if answers["flawed"][task]:
                turn = Turn(asked(task, box_format.coordinates, row[side]["bytes"]), answers[side][task])
                yield {
                    "id": f"{image_id(row, side)}.{task}",
                    "images": [row[side]],
                    "messages": list(to_messages([turn])),
                }


def _flawed_answers(row: dict[str, Any], box_format: BoxFormat) -> dict[Task, str]:
    """Empty where a text is missing."""
    regions = [(artifact["bbox"], artifact["label"]) for artifact in row["artifacts"]]
    is_labelled = all(label for _, label in regions)
    return {
        "detection": "Yes",
        "localization": regions_answer(regions, image_size(row["flawed"]), box_format) if is_labelled else "",
        "explanation": row["explanation"],
    }


def asked(task: Task, coordinates: str, picture: bytes) -> str:
    """The text of `artiagent predict` for a picture, of which the header alone is read."""
    with Image.open(io.BytesIO(picture)) as image:
        return request(task, coordinates, image).prompt


def regions_answer(regions: Iterable[tuple[Box, str]], size: tuple[int, int], box_format: BoxFormat) -> str:
    """
    The answer to "where?" in the form that the question asks for in a convention, regions from top to bottom, so that
    an image has one right answer.

    Args:
        regions (iterable of `tuple[Box, str]`): Boxes, px of the stored image, and what is wrong there.
        size (`tuple[int, int]`): Width and height of the stored image, px.
        box_format (`BoxFormat`): How boxes are written.

    Returns:
        `str`: `"[]"` without a region.
    """
    ordered = sorted(regions, key=lambda region: (region[0][1], region[0][0]))
    written = [(box_format(box, size), label) for box, label in ordered]
    return box_format.convention.write_regions(written) if written else "[]"
