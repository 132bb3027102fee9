"""Perception with SAM 3, which finds and segments all instances of a noun."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.nn.functional import interpolate
from torchvision.ops import nms
from transformers import Sam3Model, Sam3Processor

from ...vlm.base import VLM
from .association import Segment
from .backends import MAX_LONG_SIDE, PerceptionSpec
from .grounding import NMS_IOU, chunks, load_checkpoint
from .vocabulary import VocabularyPerception


# A gated repository: access must be requested on the Hub.
DEFAULT_MODEL = "facebook/sam3"

# By the `model_type` of the configuration. The published checkpoint has that of the video model it is a part of.
_CLASSES = dict.fromkeys(("sam3", "sam3_video"), (Sam3Model, Sam3Processor))

# Tokens of a prompt, as in SAM 3's training.
_PROMPT_LENGTH = 32


class Sam3Perception(VocabularyPerception):
    """
    Entities and parts that a VLM names, found and segmented by SAM 3, which takes one name at a time. An image is
    encoded once for all its names.

    Args:
        vlm (`VLM`): Names and captions.
        model (`str`, *optional*, defaults to `"facebook/sam3"`): A folder or Hub id of a SAM 3 model with safetensors.
        revision (`str`, *optional*): Branch, tag or commit of a Hub model.
        device (`str`, *optional*): Defaults to CUDA if available.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): Dtype of the weights.
        score_threshold (`float`, *optional*, defaults to 0.5): Least score of an instance, exclusive.
        mask_threshold (`float`, *optional*, defaults to 0.5): Least probability of a pixel of a mask, exclusive.
        batch_size (`int`, *optional*, defaults to 8): Maximum number of images encoded, and of names looked for, at
            once.
        max_long_side (`int`, *optional*, defaults to 1024): See [`VocabularyPerception`].

    Raises:
        PerceptionModelError: The model does not exist or cannot be loaded.
    """

    def __init__(
        self,
        vlm: VLM,
        model: str = DEFAULT_MODEL,
        revision: str | None = None,
        device: str | None = None,
        dtype: torch.dtype = torch.float32,
        score_threshold: float = 0.5,
        mask_threshold: float = 0.5,
        batch_size: int = 8,
        max_long_side: int = MAX_LONG_SIDE,
    ) -> None:
        super().__init__(vlm, max_long_side)
        self.checkpoint = load_checkpoint("model", _CLASSES, model, revision, device, dtype)
        self.score_threshold, self.mask_threshold = score_threshold, mask_threshold
        self.batch_size = batch_size

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.checkpoint.network,)

    @torch.inference_mode()
    def ground(
        self, images: Sequence[Image.Image], names: Sequence[Sequence[str]]
    ) -> list[tuple[list[Segment], list[str]]]:
        found: list[tuple[list[Segment], list[str]]] = [([], []) for _ in images]
        for batch in chunks([index for index, some in enumerate(names) if some], self.batch_size):
            features = self._features([images[index] for index in batch])
            queries = [(row, name) for row, index in enumerate(batch) for name in names[index]]
            for some in chunks(queries, self.batch_size):
                outputs = self._outputs(features, some)
                for position, (row, name) in enumerate(some):
                    size = images[batch[row]].size
                    found[batch[row]][0].extend(self._segments(name, size, outputs, position))
        return found

    def identity(self) -> dict[str, Any]:
        return super().identity() | {
            "backend": "sam3",
            "model": self.checkpoint.identity(),
            "score_threshold": self.score_threshold,
            "mask_threshold": self.mask_threshold,
            "nms_iou": NMS_IOU,
        }

    def _features(self, images: Sequence[Image.Image]) -> Any:
        network = self.checkpoint.network
        pixels = self.checkpoint.processor(images=list(images), return_tensors="pt")["pixel_values"]
        return network.get_vision_features(pixels.to(network.device, network.dtype))

    def _outputs(self, features: Any, queries: Sequence[tuple[int, str]]) -> Any:
        """Run the model on names, each in the image of a row of `features`."""
        network, rows = self.checkpoint.network, [row for row, _ in queries]
        text = self.checkpoint.processor.tokenizer(
            [name for _, name in queries],
            padding="max_length",
            truncation=True,
            max_length=_PROMPT_LENGTH,
            return_tensors="pt",
        ).to(network.device)
        chosen = type(features)(
            fpn_hidden_states=tuple(level[rows] for level in features.fpn_hidden_states),
            fpn_position_encoding=tuple(level[rows] for level in features.fpn_position_encoding),
        )
        return network(vision_embeds=chosen, input_ids=text["input_ids"], attention_mask=text["attention_mask"])

    def _segments(self, name: str, size: tuple[int, int], outputs: Any, position: int) -> Iterator[Segment]:
        """Yield the instances of one name, best first, in an image of `size` `(width, height)`."""
        scores = outputs.pred_logits[position].float().sigmoid()
        if outputs.presence_logits is not None:
            scores = scores * outputs.presence_logits[position].float().sigmoid()
        likely = (scores > self.score_threshold).nonzero()[:, 0]
        kept = likely[nms(outputs.pred_boxes[position, likely].float(), scores[likely], NMS_IOU)]
        for index in kept.tolist():
            # One by one: enlarged to a photo of 12 megapixels a mask takes 48 MB.
            probability = outputs.pred_masks[position, index].float().sigmoid()[None, None]
            large = interpolate(probability, size[::-1], mode="bilinear", align_corners=False)[0, 0]
            yield Segment(name, (large > self.mask_threshold).cpu().numpy(), float(scores[index]))


def checkpoints(spec: PerceptionSpec) -> dict[str, str]:
    """Return the backend's models; see [`~datasets_script.agents.perception.backends.PerceptionSpec.checkpoints`]."""
    return {"segmenter": spec.segmenter or DEFAULT_MODEL}


def load(spec: PerceptionSpec, source: Path, vlm: VLM | None, device: str | None) -> Sam3Perception:
    """Load the backend; see [`~datasets_script.agents.perception.backends.PerceptionSpec.load`]."""
    assert vlm is not None  # checked by `PerceptionSpec`, because of `needs_vlm`
    return Sam3Perception(vlm, spec.segmenter or DEFAULT_MODEL, device=device, max_long_side=spec.max_long_side)
