"""Reading of texts from answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def read_text(name: str, value: Mapping[str, Any]) -> str:
    """
    Read a text from an answer, on one line.

    Raises:
        ValueError: It is blank.
    """
    if not (text := " ".join(value[name].split())):
        raise ValueError(f"`{name}` must not be blank, got {value[name]!r}")
    return text
