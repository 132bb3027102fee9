"""What the readers of answers share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def read_text(name: str, value: Mapping[str, Any]) -> str:
    """
    A text of an answer, on one line.

    Raises:
        ValueError: it is blank.
    """
    if not (text := " ".join(value[name].split())):
        raise ValueError(f"`{name}` is blank")
    return text
