"""Export to YOLO's detection format: `data.yaml`, `images/` and `labels/`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from diffusers_artifact.mapping import ARTIFACT_TYPES

from ...utils.stored_images import stored_size
from ..views.stored_rows import SIDES
from .common import ExportSettings, write_image


_CLASSES = {kind: number for number, kind in enumerate(ARTIFACT_TYPES)}


def write_yolo(folder: Path, rows: Iterable[dict[str, Any]], info: dict[str, Any], settings: ExportSettings) -> None:
    """
    Write both images of each pair, and for each a text file with a line for each artifact: class, and centre, width
    and height of the box as shares of the image. Those of clean images are empty, which makes them backgrounds.
    Classes are artifact types. All images are for training; give a `val` of your own in `data.yaml`.

    Args:
        folder (`Path`): An empty folder.
        rows (iterable of `dict`): Rows of `PAIR_FEATURES` as stored.
        info (`dict`): Not used by this format.
        settings (`ExportSettings`): Not used by this format.
    """
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for index, row in enumerate(rows):
        for side in SIDES:
            size = stored_size(row[side])
            artifacts = row["artifacts"] if side == "flawed" else ()
            image = Path(write_image(folder, index, row, side))
            (folder / "labels" / f"{image.stem}.txt").write_text("".join(_line(item, size) for item in artifacts))
    names = "".join(f"  {number}: {json.dumps(kind)}\n" for kind, number in _CLASSES.items())
    # Without `path`, the folders are taken as relative to this file.
    text = f"train: images\nval: images\nnames:\n{names}"
    (folder / "data.yaml").write_text(text, encoding="utf-8")


def _line(artifact: dict[str, Any], size: tuple[int, int]) -> str:
    x_min, y_min, x_max, y_max = artifact["bbox"]
    width, height = size
    numbers = (
        (x_min + x_max) / 2 / width,
        (y_min + y_max) / 2 / height,
        (x_max - x_min) / width,
        (y_max - y_min) / height,
    )
    return f"{_CLASSES[artifact['type']]} {' '.join(f'{number:.6f}' for number in numbers)}\n"
