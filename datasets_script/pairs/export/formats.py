"""Formats that pairs can be exported to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .common import ExportSettings

    Writer = Callable[[Path, Iterable[dict[str, Any]], dict[str, Any], ExportSettings], None]

# A format is a module of that name and its function. Modules are imported on use, to keep the command line fast.
FORMATS = {
    "coco": "write_coco",
    "yolo": "write_yolo",
    "webdataset": "write_webdataset",
    "sharegpt": "write_sharegpt",
    "preference": "write_preference",
}

PREFERENCE_COLUMNS = ("chosen", "pickapic")
"""Names by which trainers of preferences know the columns."""

TRAINERS: dict[str, int | None] = {"llama-factory": 768 * 768, "other": None}
"""Trainers by name, with the pixels to which they shrink larger images by default; `None` if they do not."""


def find_writer(name: str) -> Writer:
    """Return the function that writes the format `name`, one of `FORMATS`."""
    writer: Writer = getattr(import_module(f".{name}", __package__), FORMATS[name])
    return writer
