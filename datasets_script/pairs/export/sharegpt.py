"""Export to ShareGPT conversations with images for LLaMA-Factory: `data.json`, `dataset_info.json` and `images/`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...schema.boxes import Box
from ...utils.files import write_json
from ...vlm.conventions import BoxFormat
from ..views.stored_rows import SIDES
from ..views.vqa import vqa_rows
from .common import ExportSettings, write_image


DATASET_NAME = "artiagent"
_SPEAKERS = {"user": "human", "assistant": "gpt"}


@dataclass(frozen=True)
class TrainerBoxFormat(BoxFormat):
    """
    A box format for images that a trainer shrinks before the model's processor sees them.

    Args:
        trainer_max_pixels (`int`, *optional*): Pixels to which larger images are shrunk; `None` if they are not.

    Example:

    ```python
    >>> box_format = TrainerBoxFormat("qwen2.5", trainer_max_pixels=768 * 768)
    >>> box_format.shrunk((1024, 1024)), box_format((256, 256, 768, 768), (1024, 1024))
    ((768, 768), '[189, 189, 567, 567]')

    ```

    """

    trainer_max_pixels: int | None = None

    def __call__(self, box: Box, size: tuple[int, int]) -> str:
        width, height = self.shrunk(size)
        across, down = width / size[0], height / size[1]
        return super().__call__((box[0] * across, box[1] * down, box[2] * across, box[3] * down), (width, height))

    def shrunk(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return width and height of the image that the trainer makes, rounded down as LLaMA-Factory does."""
        if self.trainer_max_pixels is None or math.prod(size) <= self.trainer_max_pixels:
            return size
        shrink = math.sqrt(self.trainer_max_pixels / math.prod(size))
        return int(size[0] * shrink), int(size[1] * shrink)


def write_sharegpt(
    folder: Path, rows: Iterable[dict[str, Any]], info: dict[str, Any], settings: ExportSettings
) -> None:
    """
    Write the conversations of the configuration `vqa`, one for each image of a pair. `<image>` stands where the image
    is, and its path is relative to the folder. LLaMA-Factory finds them with `dataset_dir` set to the folder. Images
    are stored as they are; boxes are those of the images that the trainer makes of them.

    Args:
        folder (`Path`): An empty folder.
        rows (iterable of `dict`): Rows of `PAIR_FEATURES` as stored.
        info (`dict`): Not used by this format.
        settings (`ExportSettings`): Convention of the boxes, trainer, and seed of the questions.
    """
    form = settings.box_format
    box_format = TrainerBoxFormat(form.coordinates, form.min_pixels, form.max_pixels, settings.trainer_max_pixels)
    (folder / "images").mkdir()
    conversations = []
    for index, row in enumerate(rows):
        for side, view in zip(SIDES, vqa_rows(row, box_format, settings.seed), strict=True):
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
