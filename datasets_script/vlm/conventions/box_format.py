"""The box convention of one model, set up with the bounds of its image processor."""

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
    A box convention, with the bounds of the image processor that it may depend on. Calling it with a box and the size
    of its image, in pixels, writes the box as text.

    Args:
        coordinates (`str`, *optional*, defaults to `"pixel"`): Name of the convention, one of `CONVENTIONS`.
        min_pixels, max_pixels (`int`, *optional*): Bounds of the model's image processor; by default those of the
            published Qwen2.5-VL models. Only `"qwen2.5"` depends on them.

    Raises:
        UserError: There is no such convention, `min_pixels` is not above 0, or it is above `max_pixels`.

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
        """Return the convention itself."""
        return find_convention(self.coordinates)

    def resized(self, size: tuple[int, int]) -> tuple[int, int] | None:
        """
        Return width and height of the image that the model sees, or `None` if the convention does not depend on it.
        """
        return self.convention.resized(size, self.min_pixels, self.max_pixels)

    def record(self) -> dict[str, Any]:
        """Return what a run records, JSON-serialisable: `coordinates`, and the bounds if boxes depend on them."""
        bounds = {"min_pixels": self.min_pixels, "max_pixels": self.max_pixels}
        return {"coordinates": self.coordinates, **(bounds if self.convention.counts_resized else {})}
