"""How boxes are written in a conversation with one model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...schema.boxes import Box
from ...utils.errors import UserError
from .base import BoxConvention
from .qwen2_5 import QWEN2_5_MAX_PIXELS, QWEN2_5_MIN_PIXELS
from .registry import CONVENTIONS, find_convention


@dataclass(frozen=True)
class BoxFormat:
    """
    A convention of boxes, with the bounds of the image processor that it may depend on. A call writes a box of an
    image of a size, in px, as text.

    Args:
        coordinates (`str`, *optional*, defaults to `"pixel"`): Name of the convention, one of `CONVENTIONS`.
        min_pixels, max_pixels (`int`, *optional*): As the model's image processor is set, by default as that of the
            published Qwen2.5-VL models; conventions but `"qwen2.5"` do not depend on them.

    Raises:
        UserError: there is no such convention, `min_pixels` is not above 0, or it is above `max_pixels`.

    Example:

    ```python
    >>> box_format = BoxFormat("qwen2.5", max_pixels=1003520)
    >>> box_format.resized((1920, 1080)), box_format((0, 0, 960, 540), (1920, 1080))
    ((1316, 728), '[0, 0, 658, 364]')

    ```
    """

    coordinates: str = "pixel"
    min_pixels: int = QWEN2_5_MIN_PIXELS
    max_pixels: int = QWEN2_5_MAX_PIXELS

    def __post_init__(self) -> None:
        if self.coordinates not in CONVENTIONS:
            raise UserError(f"coordinates must be among {', '.join(CONVENTIONS)}, got '{self.coordinates}'")
        if not 0 < self.min_pixels <= self.max_pixels:
            raise UserError(
                f"min_pixels must be above 0 and at most max_pixels, got {self.min_pixels} and {self.max_pixels}"
            )

    def __call__(self, box: Box, size: tuple[int, int]) -> str:
        return self.convention.format(box, size, self.resized(size))

    @property
    def convention(self) -> BoxConvention:
        """The convention itself."""
        return find_convention(self.coordinates)

    def resized(self, size: tuple[int, int]) -> tuple[int, int] | None:
        """Return width and height of the image that the model sees, where the convention depends on it."""
        return self.convention.resized(size, self.min_pixels, self.max_pixels)

    def record(self) -> dict[str, Any]:
        """Return what a run records, JSON-serialisable: `coordinates`, and the bounds where boxes depend on them."""
        bounds = {"min_pixels": self.min_pixels, "max_pixels": self.max_pixels}
        return {"coordinates": self.coordinates, **(bounds if self.convention.counts_resized else {})}
