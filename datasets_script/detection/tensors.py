"""Images as tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image


def stacked_by_size(images: Sequence[Image.Image]) -> Iterator[tuple[list[int], torch.Tensor]]:
    """
    Put images of equal size together.

    Args:
        images (`Sequence[PIL.Image.Image]`): Images in RGB.

    Yields:
        `tuple[list[int], torch.Tensor]`: Indices of the images of one size, and their pixels, `float32` of shape
        `(images, 3, height, width)` in [0, 1].
    """
    by_size: dict[tuple[int, int], list[int]] = {}
    for index, image in enumerate(images):
        by_size.setdefault(image.size, []).append(index)
    for indices in by_size.values():
        yield indices, torch.stack([_as_tensor(images[index]) for index in indices])


def _as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
