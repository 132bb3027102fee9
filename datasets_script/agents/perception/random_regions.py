"""Regions at random: roundish blobs of a share of the photo, which depend only on the seed and the photo's name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from diffusers_artifact.tools import bbox_of_mask

from ...schema.perception import UNNAMED, Entity, Perception
from ...utils.seeds import derive_seed
from ...vlm.base import VLM
from .backends import PerceptionSpec, RegionOptions
from .base import PerceptionAgent


# Blobs to choose from, which may overlap; a plan takes some that do not.
_REGIONS = 8

# The outline's distance from the centre varies with waves of 2 to 4 periods, each by up to this share. Together they
# stay below 1, so that a ray from the centre leaves the blob once, and the blob is connected.
_WAVES, _MOST_WAVE = (2, 3, 4), 0.2


class RandomRegions(PerceptionAgent):
    """
    Blobs that lie wholly within the photo, at places and of sizes drawn uniformly, the sizes on a logarithmic scale.

    Args:
        options (`RegionOptions`): Least and greatest size, and the seed.
    """

    def __init__(self, options: RegionOptions) -> None:
        self.options = options

    def perceive(self, image: Image.Image, source_id: str) -> Perception:
        generator = torch.Generator().manual_seed(derive_seed(self.options.seed, f"{source_id}:regions"))
        return Perception(tuple(self._entity(number, image.size, generator) for number in range(_REGIONS)))

    def _entity(self, number: int, size: tuple[int, int], generator: torch.Generator) -> Entity:
        least, most = (math.log(share) for share in self.options.shares)
        share = math.exp(least + (most - least) * float(torch.rand((), generator=generator)))
        mask = blob(size, share, generator)
        return Entity(UNNAMED, number, bbox_of_mask(mask), mask, 1.0)

    def identity(self) -> dict[str, Any]:
        return {"backend": "random", "shares": list(self.options.shares), "regions": _REGIONS}


def blob(size: tuple[int, int], share: float, generator: torch.Generator) -> np.ndarray:
    """
    Draw a connected, roundish region at a random place of an image.

    Args:
        size (`tuple[int, int]`): `(width, height)` of the image in pixels.
        share (`float`): Share of the image that it covers, in (0, 1). Where the image is too narrow for it, it covers
            less.
        generator (`torch.Generator`): Source of its place and shape.

    Returns:
        `np.ndarray` of shape `(height, width)`, `bool`: At least one pixel is set.
    """
    width, height = size
    amplitudes, phases, places = torch.rand((3, len(_WAVES)), generator=generator, dtype=torch.float64).numpy()
    amplitudes = _MOST_WAVE * amplitudes
    # The area of the outline r(angle) is the mean of its square, times pi.
    area = math.pi * (1 + np.square(amplitudes).sum() / 2)
    reach = 1 + amplitudes.sum()
    radius = min(math.sqrt(share * width * height / area), (min(size) - 1) / (2 * reach))
    margin = radius * reach
    x = margin + places[0] * max(0.0, width - 1 - 2 * margin)
    y = margin + places[1] * max(0.0, height - 1 - 2 * margin)
    # Photos have many times the pixels of a blob, so that only those around it are looked at.
    column, row, around = round(x), round(y), math.ceil(margin)
    left, top = max(0, column - around), max(0, row - around)
    right = np.arange(left, min(width, column + around + 1)) - column
    down = (np.arange(top, min(height, row + around + 1)) - row)[:, None]
    angles = np.arctan2(down, right)
    waves = sum(a * np.cos(n * angles + 2 * math.pi * p) for n, a, p in zip(_WAVES, amplitudes, phases, strict=True))
    mask = np.zeros((height, width), dtype=bool)
    mask[top : top + down.size, left : left + right.size] = np.hypot(down, right) <= radius * (1 + waves)
    return mask


def load(spec: PerceptionSpec, source: Path, vlm: VLM | None, device: str | None) -> RandomRegions:
    """Load the backend; see [`~datasets_script.agents.perception.backends.PerceptionSpec.load`]."""
    return RandomRegions(spec.regions)
