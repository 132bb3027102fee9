"""Qwen3-VL: thousandths of width and height."""

from __future__ import annotations

from .base import JSON_QUESTION, BoxConvention


class Qwen3(BoxConvention):
    """Thousandths of width and height, 0 to 1000 (QwenLM/Qwen3-VL#1741 and its cookbook on 2D grounding)."""

    name = "qwen3"
    meaning = "thousandths of width and height"
    question = f"{JSON_QUESTION}in whole numbers from 0 to 1000, relative to the image's width and height."
    families = ("qwen3vl",)
