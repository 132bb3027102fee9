"""Pixels of the stored image."""

from __future__ import annotations

from .base import JSON_QUESTION, Axis, BoxConvention


class Pixel(BoxConvention):
    """Whole pixels of the stored image, the convention of no published family."""

    name = "pixel"
    meaning = "pixels of the image as it is stored"
    question = f"{JSON_QUESTION}in pixels of the image, which is WIDTH wide and HEIGHT high."

    def axes(self, size: tuple[int, int], resized: tuple[int, int] | None) -> tuple[Axis, Axis]:
        return Axis(size[0], 0, size[0], size[0]), Axis(size[1], 0, size[1], size[1])
