"""Files of models: in a folder, or in a repository on the Hub."""

from __future__ import annotations

from pathlib import Path

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
