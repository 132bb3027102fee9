"""ShareGPT conversations with images, as LLaMA-Factory reads them: `data.json`, `dataset_info.json` and `images/`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...utils.files import write_json
from ..views.stored_rows import SIDES
from ..views.vqa import vqa_rows
from .common import ExportSettings, write_picture


DATA_SET = "artiagent"
_SPEAKERS = {"user": "human", "assistant": "gpt"}


def write_sharegpt(
    folder: Path, rows: Iterable[dict[str, Any]], info: dict[str, Any], settings: ExportSettings
) -> None:
    """
    Writes the conversations of the config `vqa`, one for each half of a pair, with `<image>` where the image is and
    its path relative to the folder. LLaMA-Factory finds them with `dataset_dir` set to the folder.

    Args:
        folder (`Path`): An empty folder.
        rows (iterable of `dict`): Rows of `PAIR_FEATURES` as they are stored.
        info (`dict`): What the export records of itself, which lies beside the conversations alone.
        settings (`ExportSettings`): How boxes are written, and the seed of the questions.
    """
    (folder / "images").mkdir()
    conversations = []
    for index, row in enumerate(rows):
        for side, view in zip(SIDES, vqa_rows(row, settings.box_format, settings.seed), strict=True):
            conversations.append(
                {
                    "id": view["id"],
                    "conversations": [_message(message) for message in view["messages"]],
                    "images": [write_picture(folder, index, row, side)],
                }
            )
    (folder / "data.json").write_text(json.dumps(conversations, indent=1, ensure_ascii=False), encoding="utf-8")
    columns = {"messages": "conversations", "images": "images"}
    description = {"file_name": "data.json", "formatting": "sharegpt", "columns": columns}
    write_json(folder / "dataset_info.json", {DATA_SET: description})


def _message(message: dict[str, Any]) -> dict[str, str]:
    parts = ["<image>" if part["type"] == "image" else part["text"] for part in message["content"]]
    return {"from": _SPEAKERS[message["role"]], "value": "".join(parts)}
