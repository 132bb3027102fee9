"""Ids of repositories on the Hub, and the part of a path that may be published."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath


_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form `owner/name` of a repository on the Hub."""
    return _HUB_ID.fullmatch(name) is not None


def last_name(path: str) -> str:
    """Return the last part of a path of any system; a plain name or a Hub id is returned as it is."""
    windows = PureWindowsPath(path)
    if windows.is_absolute():
        return windows.name
    return path if is_hub_id(path) else PurePosixPath(path).name or path
