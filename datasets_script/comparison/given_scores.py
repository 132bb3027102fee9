"""
Scores that another program has written, such as ImageReward and HPSv3, whose packages need environments of their own
(they pin old versions of transformers).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..utils.errors import ArgumentError
from .folders import Compared
from .measures import Column, MeasuredColumn


def read_given_scores(name: str, folders: Sequence[Path], compared: Compared) -> MeasuredColumn:
    """
    Read the file `NAME.jsonl` of each folder, with a line for each image: `{"id": "00000-0", "score": 1.2}`. Other
    fields are passed over.

    Args:
        name (`str`): Name of the score; higher is better.
        folders (`Sequence[Path]`): The folders that are compared.
        compared (`Compared`): Their images.

    Raises:
        ArgumentError: A file is missing or lacks an image, or a score is no finite number.
    """
    images = [image.name for image in compared.images]
    values = [_read(folder / f"{name}.jsonl", images) for folder in folders]
    return MeasuredColumn(Column(name, name, "higher"), values, [False] * len(folders))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ArgumentError(f"`scores` must name files that can be read, got '{path}': {error.strerror}") from error
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except ValueError as error:
            raise ArgumentError(f"`scores`, '{path}', line {number}: must be a JSON object: {error}") from error
        if not isinstance(line, dict) or not isinstance(line.get("id"), str):
            raise ArgumentError(f"`scores`, '{path}', line {number}: must be a JSON object with a text \"id\"")
        yield line


def _read(path: Path, images: Sequence[str]) -> list[float]:
    if not path.is_file():
        raise ArgumentError(f"`scores` must name a file in each folder, found no '{path}'; write it there first")
    scores = {line["id"]: line.get("score") for line in _lines(path)}
    found = []
    for image in images:
        score = scores.get(image)
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise ArgumentError(
                f'`scores` must give each image a finite number as "score", got {score!r} for "id" \'{image}\' in '
                f"'{path}'"
            )
        found.append(float(score))
    return found
