"""Regions that a pixel detector takes for artifacts on a clean photo (Menn et al., §3.1): where models fail easily."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from ...detection.pixel.detector import PixelDetector
from ...detection.pixel.locating import EMBEDDED
from ...detection.pixel.reading import find_regions
from ...schema.perception import UNNAMED, Entity, Perception
from ...utils.errors import renamed
from ...vlm.base import VLM
from .backends import PerceptionSpec, RegionOptions
from .base import PerceptionAgent, PerceptionError


class DetectedRegions(PerceptionAgent):
    """
    Regions of a pixel detector's map: connected pixels above a threshold that cover enough of the photo.

    Args:
        detector (`PixelDetector`): Loaded detector.
        options (`RegionOptions`): Threshold and least size.
    """

    def __init__(self, detector: PixelDetector, options: RegionOptions) -> None:
        recorded, at = detector.record.thresholds, options.threshold
        thresholds = recorded if at is None else replace(recorded, high=at, low=at)
        self.detector, self.thresholds = detector, replace(thresholds, minimum_area=options.min_share)

    def perceive(self, image: Image.Image, source_id: str) -> Perception:
        (artifact_map,) = self.detector.maps([image])
        return self._read(artifact_map)

    def perceive_batch(
        self, images: Sequence[Image.Image], source_ids: Sequence[str]
    ) -> list[Perception | PerceptionError]:
        return [self._read(artifact_map) for artifact_map in self.detector.maps(images)]

    def _read(self, artifact_map: np.ndarray) -> Perception:
        entities = []
        for number, region in enumerate(find_regions(artifact_map, self.thresholds)):
            assert region.mask is not None and region.score is not None  # a map gives both
            entities.append(Entity(UNNAMED, number, region.box, region.mask, region.score))
        return Perception(tuple(entities))

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.detector.network,)

    def identity(self) -> dict[str, Any]:
        return {"backend": "detector", "detector": self.detector.identity(), "regions": asdict(self.thresholds)}


def checkpoints(spec: PerceptionSpec) -> dict[str, str]:
    """Return the backend's models; see [`~datasets_script.agents.perception.backends.PerceptionSpec.checkpoints`]."""
    return {"detector": spec.detector} if spec.detector and spec.detector != EMBEDDED else {}


def load(spec: PerceptionSpec, source: Path, vlm: VLM | None, device: str | None) -> DetectedRegions:
    """Load the backend; see [`~datasets_script.agents.perception.backends.PerceptionSpec.load`]."""
    with renamed("model", "detector"):
        detector = PixelDetector.from_pretrained(spec.detector or EMBEDDED, device=device)
    return DetectedRegions(detector, spec.regions)
