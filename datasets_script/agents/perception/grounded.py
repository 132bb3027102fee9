"""Perception by open-vocabulary models: a VLM names what is in an image, other models find it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from ...schema.perception import Perception
from ...vlm.base import VLM, VLMAnswer
from ..prompts import caption, vocabulary
from ..prompts.vocabulary import Vocabulary
from .association import MIN_CONTAINMENT, Segment, associate
from .backends import MAX_LONG_SIDE, PerceptionSpec
from .base import PerceptionAgent, PerceptionError
from .grounding import DEFAULT_DETECTOR, DEFAULT_SEGMENTER, BoxSegmenter, GroundingDino
from .reduction import enlarged, reduced


class VocabularyPerception(PerceptionAgent):
    """
    Base of backends in which a VLM names the entities and parts of each image and captions it. [`ground`] finds them,
    and parts are assigned to the instances that contain them, see
    [`~datasets_script.agents.perception.association.associate`].

    Args:
        vlm (`VLM`): Asked about all images of a batch at once.
        max_long_side (`int`, *optional*, defaults to 1024): Larger images are reduced to this long side before any
            model sees them, and masks are mapped back.
    """

    def __init__(self, vlm: VLM, max_long_side: int = MAX_LONG_SIDE) -> None:
        self.vlm, self.max_long_side = vlm, max_long_side

    @abstractmethod
    def ground(
        self, images: Sequence[Image.Image], names: Sequence[Sequence[str]]
    ) -> list[tuple[list[Segment], list[str]]]:
        """
        Find named things in images.

        Args:
            images (`Sequence[PIL.Image.Image]`): RGB.
            names (`Sequence[Sequence[str]]`): For each image the names to look for.

        Returns:
            `list[tuple[list[Segment], list[str]]]`: For each image the segments found, and reasons for those that were
            dropped.
        """

    def perceive(self, image: Image.Image, source_id: str) -> Perception:
        (result,) = self.perceive_batch([image], [source_id])
        if isinstance(result, PerceptionError):
            raise result
        return result

    def perceive_batch(
        self, images: Sequence[Image.Image], source_ids: Sequence[str]
    ) -> list[Perception | PerceptionError]:
        """
        Perceive several images; see [`~datasets_script.agents.perception.base.PerceptionAgent.perceive_batch`].

        Raises:
            VLMUnavailable: The VLM cannot be reached.
        """
        sizes, images = [image.size for image in images], [reduced(image, self.max_long_side) for image in images]
        answers = self.vlm.ask([prompt.request(image) for image in images for prompt in (vocabulary, caption)])
        readings = [_read(*pair) for pair in zip(answers[::2], answers[1::2], strict=True)]
        names = [() if isinstance(reading, PerceptionError) else reading[0].names for reading in readings]
        results: list[Perception | PerceptionError] = []
        for size, reading, (segments, notes) in zip(sizes, readings, self.ground(images, names), strict=True):
            if isinstance(reading, PerceptionError):
                results.append(reading)
            else:
                perception = enlarged(associate(segments, *reading), size)
                results.append(replace(perception, notes=(*notes, *perception.notes)))
        return results

    def identity(self) -> dict[str, Any]:
        return {
            "vlm": self.vlm.identity(),
            "prompts": {"vocabulary": vocabulary.VERSION, "caption": caption.VERSION},
            "min_containment": MIN_CONTAINMENT,
            "max_long_side": self.max_long_side,
        }


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


def _read(names: VLMAnswer, text: VLMAnswer) -> tuple[Vocabulary, str] | PerceptionError:
    """Read the answers to the two questions, or return why one of them cannot be used."""
    if names.value is None:
        return PerceptionError(f"the VLM gave no vocabulary: {names.error}", names.raw)
    if text.value is None:
        return PerceptionError(f"the VLM gave no caption: {text.error}", text.raw)
    try:
        return vocabulary.read(names.value), caption.read(text.value)
    except ValueError as error:
        return PerceptionError(f"the VLM gave no caption: {error}", text.raw)


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
