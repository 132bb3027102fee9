"""Fractions of width and height."""

from __future__ import annotations

from .base import JSON_QUESTION, BoxConvention


class Normalized(BoxConvention):
    """Fractions of width and height, 3 decimals: the default for models of unknown families."""

    name = "normalized"
    meaning = "fractions of width and height"
    question = f"{JSON_QUESTION}as fractions of the image's width and height, from 0 to 1 with three decimals."
    decimals = 3
