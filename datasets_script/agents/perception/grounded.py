"""Perception by open-vocabulary models: Grounding DINO and SAM find what a VLM names in an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from ...vlm.base import VLM
from .association import Segment
from .backends import MAX_LONG_SIDE, PerceptionSpec
from .grounding import DEFAULT_DETECTOR, DEFAULT_SEGMENTER, BoxSegmenter, GroundingDino
from .vocabulary import VocabularyPerception


class GroundedSamPerception(VocabularyPerception):
    """
    Entities and parts that a VLM names, located by Grounding DINO and segmented by SAM or SAM 2. Both models run in
    float32 by default: they are small beside the diffusion transformer, and everything later depends on their masks.

    Args:
        vlm (`VLM`): Names and captions.
        detector (`str`, *optional*, defaults to `"IDEA-Research/grounding-dino-tiny"`): A folder or Hub id of a
            Grounding DINO or MM Grounding DINO model with safetensors.
        segmenter (`str`, *optional*, defaults to `"facebook/sam-vit-huge"`): The same for a SAM or SAM 2 model, e.g.
            the faster `"facebook/sam2.1-hiera-large"`.
        detector_revision, segmenter_revision (`str`, *optional*): Branch, tag or commit of a Hub model.
        device (`str`, *optional*): Device of both models. Defaults to CUDA if available.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): Dtype of both models.
        box_threshold (`float`, *optional*, defaults to 0.30): Least score of a box, exclusive (ArtiAgent §3).
        text_threshold (`float`, *optional*, defaults to 0.25): Least score, exclusive, at which a token counts as
            naming a box.
        batch_size (`int`, *optional*, defaults to 8): Maximum number of images at once.
        max_long_side (`int`, *optional*, defaults to 1024): See [`VocabularyPerception`].

    Raises:
        PerceptionModelError: One of the two models cannot be loaded.
    """

    def __init__(
        self,
        vlm: VLM,
        detector: str = DEFAULT_DETECTOR,
        segmenter: str = DEFAULT_SEGMENTER,
        detector_revision: str | None = None,
        segmenter_revision: str | None = None,
        device: str | None = None,
        dtype: torch.dtype = torch.float32,
        box_threshold: float = 0.30,
        text_threshold: float = 0.25,
        batch_size: int = 8,
        max_long_side: int = MAX_LONG_SIDE,
    ) -> None:
        super().__init__(vlm, max_long_side)
        self.detector = GroundingDino(
            detector, detector_revision, device, dtype, box_threshold, text_threshold, batch_size
        )
        self.segmenter = BoxSegmenter(segmenter, segmenter_revision, device, dtype, batch_size)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return self.detector.checkpoint.network, self.segmenter.checkpoint.network

    def ground(
        self, images: Sequence[Image.Image], names: Sequence[Sequence[str]]
    ) -> list[tuple[list[Segment], list[str]]]:
        found = self.detector.detect(images, names)
        masks = self.segmenter.segment(images, [[one.box for one in detections] for detections, _ in found])
        return [
            ([Segment(one.name, mask, one.score) for one, mask in zip(detections, outlines, strict=True)], notes)
            for (detections, notes), outlines in zip(found, masks, strict=True)
        ]

    def identity(self) -> dict[str, Any]:
        return super().identity() | {
            "backend": "grounded-sam",
            "detector": self.detector.identity(),
            "segmenter": self.segmenter.identity(),
        }


def checkpoints(spec: PerceptionSpec) -> dict[str, str]:
    """Return the backend's models; see [`~datasets_script.agents.perception.backends.PerceptionSpec.checkpoints`]."""
    return {"detector": spec.detector or DEFAULT_DETECTOR, "segmenter": spec.segmenter or DEFAULT_SEGMENTER}


def load(spec: PerceptionSpec, source: Path, vlm: VLM | None, device: str | None) -> GroundedSamPerception:
    """Load the backend; see [`~datasets_script.agents.perception.backends.PerceptionSpec.load`]."""
    assert vlm is not None  # checked by `PerceptionSpec`, because of `needs_vlm`
    named = checkpoints(spec)
    return GroundedSamPerception(
        vlm, named["detector"], named["segmenter"], device=device, max_long_side=spec.max_long_side
    )
