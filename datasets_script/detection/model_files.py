"""Files of models: in a folder, or in a repository on the Hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..utils.errors import UserError
from ..utils.hub_ids import is_hub_id


def find_model_file(model: str, file: str, revision: str | None = None) -> Path | None:
    """
    Return the path of one file of a model, or `None` if there is none or the Hub cannot be asked. Of a repository,
    this file alone is downloaded.

    Args:
        model (`str`): A folder, or the id of a repository on the Hub.
        file (`str`): Name of the file.
        revision (`str`, *optional*): Branch, tag or commit of a repository.
    """
    folder = Path(model)
    if folder.is_dir() or not is_hub_id(model):
        path = folder / file
        return path if path.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    try:
        return Path(hf_hub_download(model, file, revision=revision))
    except (EntryNotFoundError, HfHubHTTPError):
        return None


def read_model_record(path: Path, format: int, keys: Sequence[str], kind: str) -> dict[str, Any]:
    """
    Read the record that lies beside the weights of a model.

    Args:
        path (`Path`): The file.
        format (`int`): Number of its format.
        keys (`Sequence[str]`): What it must hold.
        kind (`str`): What was saved, for messages.

    Returns:
        `dict[str, Any]`: Its content.

    Raises:
        UserError: It cannot be read, is of another format, or is incomplete.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' must be JSON that can be read: {error}") from error
    if not isinstance(content, dict) or content.get("format") != format or not content.keys() >= set(keys):
        raise UserError(f"'{path}' must be of format {format} with {', '.join(keys)}; save the {kind} again")
    return content
