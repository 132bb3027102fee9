"""The formats that pairs can be exported in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .common import ExportSettings

    Writer = Callable[[Path, Iterable[dict[str, Any]], dict[str, Any], ExportSettings], None]

# Each is a module here of that name; imported when it is written, so that a command line lists them at once.
FORMATS = {"coco": "write_coco", "webdataset": "write_webdataset", "sharegpt": "write_sharegpt"}


def find_writer(name: str) -> Writer:
    """Return the function that writes a format, one of `FORMATS`."""
    writer: Writer = getattr(import_module(f".{name}", __package__), FORMATS[name])
    return writer
