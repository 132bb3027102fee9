"""LLaVA: fractions of the image padded to a square."""

from __future__ import annotations

from collections.abc import Sequence

from .base import Axis, BoxConvention


class Llava(BoxConvention):
    """
    Fractions of the image padded to a square around its middle, 2 decimals (haotian-liu/LLaVA#606). They do not depend
    on the size that the square is resized to (336 px for LLaVA-1.5 and SynArtifact), as long as the image is padded
    and not cropped.
    """

    name = "llava"
    meaning = "fractions of the image padded to a square"
    question = (
        "Answer with a line for each region: [x_min, y_min, x_max, y_max], and what is wrong there. Coordinates are "
        "fractions from 0 to 1 with two decimals, of the image padded to a square."
    )
    families = ("llava",)
    decimals = 2

    def axes(self, size: tuple[int, int], resized: tuple[int, int] | None) -> tuple[Axis, Axis]:
        side = max(size)
        return Axis(size[0], (side - size[0]) // 2, side, 100), Axis(size[1], (side - size[1]) // 2, side, 100)

    def write_regions(self, regions: Sequence[tuple[str, str]]) -> str:
        return "\n".join(f"{box}, {label}" for box, label in regions)
