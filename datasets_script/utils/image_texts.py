"""Texts of the images of a folder, from the file that `datasets` reads beside them."""

from __future__ import annotations

import json
from pathlib import Path

from .errors import UserError


METADATA = "metadata.jsonl"
"""File beside images, with a line for each: `artiagent generate` writes it, the loader `imagefolder` reads it."""

_COLUMNS = ("prompt", "text")


def image_texts(folder: Path) -> dict[str, str]:
    """
    Read the texts of a folder's images from its `metadata.jsonl`.

    Args:
        folder (`Path`): The folder.

    Returns:
        `dict[str, str]`: The text of each image, of the column `prompt` or else `text`, by `file_name`. Images without
        one are left out; without the file, all are.

    Raises:
        UserError: The file cannot be read.
    """
    path = folder / METADATA
    if not path.is_file():
        return {}
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        texts = {row["file_name"]: next(filter(None, map(row.get, _COLUMNS)), "") for row in rows}
        if other := next((text for text in texts.values() if not isinstance(text, str)), None):
            raise TypeError(f"a text that is {other!r}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"'{path}' must hold a JSON object with `file_name`, and `prompt` or `text`, in each line, got {error!r}; "
            "mend it or take it away"
        ) from error
    return {name: text for name, text in texts.items() if text}
