"""How boxes in the answers of a model are meant."""

from __future__ import annotations

from dataclasses import dataclass

from ..vlm.base import VLM
from ..vlm.cache import CachedVLM
from ..vlm.conventions import (
    QWEN2_5_MAX_PIXELS,
    QWEN2_5_MIN_PIXELS,
    Convention,
    convention_for,
    pixel_bounds,
    qwen2_5_size,
)
from ..vlm.local import LocalVLM


@dataclass(frozen=True)
class AnswerFormat:
    """
    How boxes in answers are meant.

    Attributes:
        coordinates (`str`): Their convention.
        min_pixels, max_pixels (`int`): Bounds of the model's image processor, for `"qwen2.5"`.
    """

    coordinates: Convention = "pixel"
    min_pixels: int = QWEN2_5_MIN_PIXELS
    max_pixels: int = QWEN2_5_MAX_PIXELS

    def resized(self, size: tuple[int, int]) -> tuple[int, int] | None:
        """Width and height of the image that the model saw, where the convention depends on it."""
        return qwen2_5_size(size, self.min_pixels, self.max_pixels) if self.coordinates == "qwen2.5" else None


def convention_of(vlm: VLM) -> Convention:
    """
    How a model is trained to write boxes: by the record of its training where that is beside it (`training.json`), or
    as its family does, by its architecture or name; `"normalized"` for others.
    """
    local = _local(vlm)
    if local and local.coordinates:
        return local.coordinates
    return convention_for(local.network.config.model_type if local else "", vlm.model)


def answer_format(vlm: VLM, coordinates: Convention, bounds: tuple[int | None, int | None]) -> AnswerFormat:
    """
    How boxes of a model are meant.

    Args:
        vlm (`VLM`): The model.
        coordinates (`str`): Their convention.
        bounds (`tuple[int | None, int | None]`): Least and most pixels of the model's image processor; by default
            those of the processor itself, or behind an endpoint those of the published Qwen2.5-VL models.
    """
    local = _local(vlm)
    known = pixel_bounds(local.processor.image_processor if local else None)
    least, most = (given or default for given, default in zip(bounds, known, strict=True))
    return AnswerFormat(coordinates, least, most)


def _local(vlm: VLM) -> LocalVLM | None:
    """The model itself, where it runs here."""
    model = vlm.vlm if isinstance(vlm, CachedVLM) else vlm
    return model if isinstance(model, LocalVLM) else None
