"""Export to ShareGPT conversations with images for LLaMA-Factory: `data.json`, `dataset_info.json` and `images/`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...utils.files import write_json
from ..views.stored_rows import SIDES
from ..views.vqa import vqa_rows
from .common import ExportSettings, write_image


DATASET_NAME = "artiagent"
_SPEAKERS = {"user": "human", "assistant": "gpt"}


def write_sharegpt(
    folder: Path, rows: Iterable[dict[str, Any]], info: dict[str, Any], settings: ExportSettings
) -> None:
    """
    Write the conversations of the configuration `vqa`, one for each image of a pair. `<image>` stands where the image
    is, and its path is relative to the folder. LLaMA-Factory finds them with `dataset_dir` set to the folder.

    Args:
        folder (`Path`): An empty folder.
        rows (iterable of `dict`): Rows of `PAIR_FEATURES` as stored.
        info (`dict`): Not used by this format.
        settings (`ExportSettings`): Convention of the boxes and seed of the questions.
    """
    (folder / "images").mkdir()
    conversations = []
    for index, row in enumerate(rows):
        for side, view in zip(SIDES, vqa_rows(row, settings.box_format, settings.seed), strict=True):
            conversations.append(
                {
                    "id": view["id"],
                    "conversations": [_message(message) for message in view["messages"]],
                    "images": [write_image(folder, index, row, side)],
                }
            )
    (folder / "data.json").write_text(json.dumps(conversations, indent=1, ensure_ascii=False), encoding="utf-8")
    columns = {"messages": "conversations", "images": "images"}
    description = {"file_name": "data.json", "formatting": "sharegpt", "columns": columns}
    write_json(folder / "dataset_info.json", {DATASET_NAME: description})


def _message(message: dict[str, Any]) -> dict[str, str]:
    parts = ["<image>" if part["type"] == "image" else part["text"] for part in message["content"]]
    return {"from": _SPEAKERS[message["role"]], "value": "".join(parts)}
