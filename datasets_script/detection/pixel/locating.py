"""Where the files of a pixel detector are: in a folder, in a repository on the Hub, or in this package."""

from __future__ import annotations

from pathlib import Path

from ...utils.errors import ArgumentError
from ..model_files import find_model_file


PIXEL_FILE = "pixel_detector.json"
"""File beside the weights by which a folder or a repository is known as a pixel detector."""

EMBEDDED = "embedded"
"""Name of the detector that is shipped in this package."""

EMBEDDED_FOLDER = Path(__file__).parent / EMBEDDED


def is_pixel_detector(model: str, revision: str | None = None) -> bool:
    """
    Return whether a name is that of a pixel detector, by its file `pixel_detector.json`. Of a repository, this file
    alone is downloaded; if the Hub cannot be asked, the answer is no, and loading says why.

    Args:
        model (`str`): A folder, the id of a repository on the Hub, or `"embedded"`.
        revision (`str`, *optional*): Branch, tag or commit of a repository.
    """
    return find_record(model, revision) is not None


def find_record(model: str, revision: str | None = None) -> Path | None:
    """
    Return the path of a detector's `pixel_detector.json`, or `None` if there is none; see [`is_pixel_detector`].

    Raises:
        ArgumentError: `model` is `"embedded"`, and the package holds no detector.
    """
    return find_model_file(find_folder(model), PIXEL_FILE, revision)


def find_folder(model: str) -> str:
    """
    Return the folder that `"embedded"` stands for, and any other name as it is.

    Raises:
        ArgumentError: `model` is `"embedded"`, and the package holds no detector.
    """
    if model != EMBEDDED or Path(model).is_dir():
        return model
    if not (EMBEDDED_FOLDER / PIXEL_FILE).is_file():
        raise ArgumentError(
            f"`model` {EMBEDDED!r} must be part of this installation, found no detector in '{EMBEDDED_FOLDER}'; give "
            "the folder of another one, or train one with training/"
        )
    return str(EMBEDDED_FOLDER)
