"""Instructions: one row per image and task, a question of `artiagent predict` with the right answer."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

from PIL import Image

from ...detection.questions import Task, request
from ...schema.boxes import Box
from ...utils.stored_images import stored_size
from ...vlm.conventions import BoxFormat
from .stored_rows import SIDES, image_id
from .vqa import Turn, to_messages


TASKS: tuple[Task, ...] = ("detection", "localization", "explanation")

_CLEAN_ANSWERS: dict[Task, str] = {"detection": "No", "localization": "[]", "explanation": "No artifacts."}


def instruction_rows(row: dict[str, Any], box_format: BoxFormat) -> Iterator[dict[str, Any]]:
    """
    Convert a pair to the questions of `artiagent predict` about its clean image and its artifact image. A task that
    cannot be answered for the artifact image, because a text is missing, is left out for the clean image too:
    otherwise the task alone would hint at the answer.

    Args:
        row (`dict`): A row of `PAIR_FEATURES` as stored.
        box_format (`BoxFormat`): Convention to write boxes in.

    Returns:
        `Iterator[dict]`: Rows of [`~datasets_script.pairs.views.vqa.FEATURES`].
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
    """Return the answers about the artifact image; empty where a text is missing."""
    regions = [(artifact["bbox"], artifact["label"]) for artifact in row["artifacts"]]
    is_labelled = all(label for _, label in regions)
    return {
        "detection": "Yes",
        "localization": regions_answer(regions, stored_size(row["flawed"]), box_format) if is_labelled else "",
        "explanation": row["explanation"],
    }


def asked(task: Task, coordinates: str, content: bytes) -> str:
    """
    Compose the question that `artiagent predict` asks about an image.

    Args:
        task (`str`): The task.
        coordinates (`str`): Convention in which to ask for boxes.
        content (`bytes`): Content of the image file; only its header is read.

    Returns:
        `str`: The question.
    """
    with Image.open(io.BytesIO(content)) as image:
        return request(task, coordinates, image).prompt


def regions_answer(regions: Iterable[tuple[Box, str]], size: tuple[int, int], box_format: BoxFormat) -> str:
    """
    Write regions in the form that the localization question asks for, sorted from top to bottom, so that an image has
    one right answer.

    Args:
        regions (iterable of `tuple[Box, str]`): Boxes `(x_min, y_min, x_max, y_max)`, exclusive maxima, px of the
            stored image, and their labels.
        size (`tuple[int, int]`): Width and height of the stored image, px.
        box_format (`BoxFormat`): Convention to write boxes in.

    Returns:
        `str`: The answer; `"[]"` without regions.
    """
    ordered = sorted(regions, key=lambda region: (region[0][1], region[0][0]))
    written = [(box_format(box, size), label) for box, label in ordered]
    return box_format.convention.write_regions(written) if written else "[]"
