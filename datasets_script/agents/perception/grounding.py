"""Grounding of names in images: boxes from Grounding DINO, masks from SAM or SAM 2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from torchvision.ops import batched_nms, box_convert, clip_boxes_to_image
from transformers import (
    AutoConfig,
    AutoModelForZeroShotObjectDetection,
    AutoProcessor,
    Sam2Model,
    Sam2Processor,
    SamModel,
    SamProcessor,
)

from ...schema.boxes import Box
from ...utils.files import resolve_revision
from ...utils.hub_access import why_not_loaded
from .base import PerceptionModelError


# Swin-T, as in the paper.
DEFAULT_DETECTOR = "IDEA-Research/grounding-dino-tiny"

# The largest: parts are small and thin, and one pass is short compared to the synthesis that follows.
DEFAULT_SEGMENTER = "facebook/sam-vit-huge"

# Boxes of one name with a larger intersection over union are one thing.
NMS_IOU = 0.5

# Classes by the `model_type` of their configurations. SAM 2's image checkpoints have that of its video model.
_DETECTORS = dict.fromkeys(
    ("grounding-dino", "mm-grounding-dino"), (AutoModelForZeroShotObjectDetection, AutoProcessor)
)
_SEGMENTERS = {
    "sam": (SamModel, SamProcessor),
    "sam2": (Sam2Model, Sam2Processor),
    "sam2_video": (Sam2Model, Sam2Processor),
}

# Masks decoded together. SAM repeats the embedding of the image for each: 64 take 0.3 GB.
_BOXES_AT_ONCE = 64

Item = TypeVar("Item")


@dataclass(frozen=True)
class Checkpoint:
    """
    A loaded model with its processor.

    Attributes:
        model (`str`): Folder or Hub id.
        revision (`str`): Commit on the Hub, or a fingerprint of the folder.
        network (`transformers.PreTrainedModel`): The model, on its device, in evaluation mode.
        processor (`transformers.ProcessorMixin`): Its processor.
    """

    model: str
    revision: str
    network: Any
    processor: Any

    def identity(self) -> dict[str, Any]:
        return {"model": self.model, "revision": self.revision, "dtype": str(self.network.dtype)}


@dataclass(frozen=True)
class GroundedBox:
    """A named box `(x_min, y_min, x_max, y_max)`, exclusive maxima, in pixels, with a score in [0, 1]."""

    name: str
    box: Box
    score: float


@dataclass(frozen=True)
class _Query:
    """Names to look for together in the image of an index."""

    index: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class NameTokens:
    """Position of a name in a prompt: its tokens are `start:stop`, those of its last word `head:stop`."""

    name: str
    start: int
    head: int
    stop: int


class GroundingDino:
    """
    Open-vocabulary detection by Grounding DINO.

    A box gets the name of its strongest token, and that token's score. Tokens are assigned to names by their position
    in the prompt. transformers' `post_process_grounded_object_detection` is not used, because it concatenates all
    tokens over the threshold, of whichever names, and its score may be that of a full stop. The last word of the name
    must be among the tokens over the threshold, or the box is dropped: "door" alone is no "door handle".

    Images are batched with others of their size, so that none is padded: padding changes what the backbone sees, and a
    result must not depend on the batch.

    Args:
        model (`str`, *optional*, defaults to `"IDEA-Research/grounding-dino-tiny"`): A folder or Hub id of a Grounding
            DINO or MM Grounding DINO model with safetensors.
        revision (`str`, *optional*): Branch, tag or commit of a Hub model.
        device (`str`, *optional*): Defaults to CUDA if available.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): Dtype of the weights.
        box_threshold (`float`, *optional*, defaults to 0.30): Least score of a box, exclusive.
        text_threshold (`float`, *optional*, defaults to 0.25): Least score, exclusive, at which a token counts as
            naming a box.
        batch_size (`int`, *optional*, defaults to 8): Maximum number of images at once.

    Raises:
        PerceptionModelError: The model does not exist or cannot be loaded.
    """

    def __init__(
        self,
        model: str = DEFAULT_DETECTOR,
        revision: str | None = None,
        device: str | None = None,
        dtype: torch.dtype = torch.float32,
        box_threshold: float = 0.30,
        text_threshold: float = 0.25,
        batch_size: int = 8,
    ) -> None:
        self.checkpoint = load_checkpoint("detector", _DETECTORS, model, revision, device, dtype)
        self.box_threshold, self.text_threshold = box_threshold, text_threshold
        self.batch_size = batch_size
        self._stop_id = self.checkpoint.processor.tokenizer.convert_tokens_to_ids(".")

    def identity(self) -> dict[str, Any]:
        return self.checkpoint.identity() | {
            "box_threshold": self.box_threshold,
            "text_threshold": self.text_threshold,
            "nms_iou": NMS_IOU,
        }

    @torch.inference_mode()
    def detect(
        self, images: Sequence[Image.Image], names: Sequence[Sequence[str]]
    ) -> list[tuple[list[GroundedBox], list[str]]]:
        """
        Find named things in images.

        Args:
            images (`Sequence[PIL.Image.Image]`): RGB, of any sizes.
            names (`Sequence[Sequence[str]]`): For each image the names to look for, in lower case, without full stops.

        Returns:
            `list[tuple[list[GroundedBox], list[str]]]`: For each image the boxes found, best first, and reasons for
            boxes that were dropped.
        """
        found: list[tuple[list[GroundedBox], list[str]]] = [([], []) for _ in images]
        queries = [_Query(index, part) for index, one in enumerate(names) for part in self._prompts(one)]
        queries.sort(key=lambda query: images[query.index].size)
        for _, same_size in groupby(queries, key=lambda query: images[query.index].size):
            for batch in chunks(list(same_size), self.batch_size):
                for query, (detections, notes) in zip(batch, self._detect_batch(images, batch), strict=True):
                    found[query.index][0].extend(detections)
                    found[query.index][1].extend(notes)
        return [(suppress_duplicates(detections), notes) for detections, notes in found]

    def _prompts(self, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """Yield the names in groups that fit in one prompt."""
        room = limit = self.checkpoint.network.config.max_text_len - 2
        prompt: list[str] = []
        for name in names:
            length = self._length(name) + 1
            if prompt and length > room:
                yield tuple(prompt)
                prompt, room = [], limit
            prompt.append(name)
            room -= length
        if prompt:
            yield tuple(prompt)

    def _length(self, text: str) -> int:
        return len(self.checkpoint.processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _detect_batch(
        self, images: Sequence[Image.Image], queries: Sequence[_Query]
    ) -> Iterator[tuple[list[GroundedBox], list[str]]]:
        network = self.checkpoint.network
        inputs = self.checkpoint.processor(
            images=[images[query.index] for query in queries],
            text=[". ".join(query.names) + "." for query in queries],
            padding=True,
            return_tensors="pt",
        ).to(network.device, network.dtype)
        outputs = network(**inputs)
        scores = outputs.logits.float().sigmoid().cpu().numpy()
        for row, query in enumerate(queries):
            width, height = images[query.index].size
            boxes = box_convert(outputs.pred_boxes[row].float().cpu(), "cxcywh", "xyxy")
            boxes = clip_boxes_to_image(boxes * torch.tensor([width, height] * 2), (height, width))
            tokens = self._tokens(query.names, inputs["input_ids"][row])
            yield name_boxes(scores[row], boxes.tolist(), tokens, self.box_threshold, self.text_threshold)

    def _tokens(self, names: Sequence[str], ids: torch.Tensor) -> list[NameTokens]:
        """
        Return the tokens of each name of a prompt, which begins with a special token and has a full stop after each
        name.
        """
        stops = (ids == self._stop_id).nonzero()[:, 0].tolist()
        starts = [1, *(stop + 1 for stop in stops[:-1])]
        return [
            NameTokens(name, start, stop - self._length(name.split()[-1]), stop)
            for name, start, stop in zip(names, starts, stops, strict=True)
        ]


def name_boxes(
    scores: np.ndarray,
    boxes: Sequence[Sequence[float]],
    tokens: Sequence[NameTokens],
    box_threshold: float,
    text_threshold: float,
) -> tuple[list[GroundedBox], list[str]]:
    """
    Name the boxes of one prompt, see [`GroundingDino`].

    Args:
        scores (`np.ndarray` of shape `(boxes, tokens)`): Probability of each token of the prompt for each box.
        boxes (`Sequence[Sequence[float]]`): `(x_min, y_min, x_max, y_max)`, pixels.
        tokens (`Sequence[NameTokens]`): Position of each name's tokens.
        box_threshold, text_threshold (`float`): See [`GroundingDino`].

    Returns:
        `tuple[list[GroundedBox], list[str]]`: Boxes with a name, and reasons for those over the threshold without one.
    """
    detections, notes = [], []
    for (x_min, y_min, x_max, y_max), row in zip(boxes, scores, strict=True):
        score, best = max(((float(row[one.start : one.stop].max()), one) for one in tokens), key=lambda pair: pair[0])
        if score <= box_threshold:
            continue
        if row[best.head : best.stop].max() > text_threshold:
            detections.append(GroundedBox(best.name, (x_min, y_min, x_max, y_max), score))
        else:
            notes.append(f"{best.name}: a box scores {score:.2f}, but not for {best.name.split()[-1]!r}")
    return detections, notes


class BoxSegmenter:
    """
    Segmentation of what is in boxes, by SAM or SAM 2. Of three masks for each box, the one that the model expects to
    fit best is kept. Images are encoded in batches, since SAM resizes all of them to one size.

    Args:
        model (`str`, *optional*, defaults to `"facebook/sam-vit-huge"`): A folder or Hub id of a SAM or SAM 2 model
            with safetensors.
        revision (`str`, *optional*): Branch, tag or commit of a Hub model.
        device (`str`, *optional*): Defaults to CUDA if available.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): Dtype of the weights.
        batch_size (`int`, *optional*, defaults to 8): Maximum number of images at once.

    Raises:
        PerceptionModelError: The model does not exist or cannot be loaded.
    """

    def __init__(
        self,
        model: str = DEFAULT_SEGMENTER,
        revision: str | None = None,
        device: str | None = None,
        dtype: torch.dtype = torch.float32,
        batch_size: int = 8,
    ) -> None:
        self.checkpoint = load_checkpoint("segmenter", _SEGMENTERS, model, revision, device, dtype)
        self.batch_size = batch_size

    def identity(self) -> dict[str, Any]:
        return self.checkpoint.identity()

    @torch.inference_mode()
    def segment(self, images: Sequence[Image.Image], boxes: Sequence[Sequence[Box]]) -> list[list[np.ndarray]]:
        """
        Compute a mask for each box of each image.

        Args:
            images (`Sequence[PIL.Image.Image]`): RGB, of any sizes.
            boxes (`Sequence[Sequence[tuple[float, float, float, float]]]`): For each image
                `(x_min, y_min, x_max, y_max)` of its boxes, pixels.

        Returns:
            `list[list[np.ndarray]]`: For each image the masks of its boxes, `bool` of shape `(height, width)`.
        """
        masks: list[list[np.ndarray]] = [[] for _ in images]
        for batch in chunks([index for index, some in enumerate(boxes) if some], self.batch_size):
            inputs = [self._inputs(images[index], boxes[index]) for index in batch]
            pixels = torch.cat([one["pixel_values"] for one in inputs])
            network = self.checkpoint.network
            embeddings = network.get_image_embeddings(pixels.to(network.device, network.dtype))
            for position, (index, one) in enumerate(zip(batch, inputs, strict=True)):
                masks[index] = list(self._masks(_row(embeddings, position), one))
        return masks

    def _inputs(self, image: Image.Image, boxes: Sequence[Box]) -> Any:
        return self.checkpoint.processor(
            images=[image], input_boxes=[[list(box) for box in boxes]], return_tensors="pt"
        )

    def _masks(self, embedding: Any, inputs: Any) -> Iterator[np.ndarray]:
        network, processor = self.checkpoint.network, self.checkpoint.processor
        # SAM pads images to a square, SAM 2 stretches them.
        sizes = [
            inputs["original_sizes"],
            *([inputs["reshaped_input_sizes"]] if isinstance(network, SamModel) else []),
        ]
        for boxes in inputs["input_boxes"].float().split(_BOXES_AT_ONCE, dim=1):
            outputs = network(image_embeddings=embedding, input_boxes=boxes.to(network.device), multimask_output=True)
            best = outputs.iou_scores[0].argmax(-1).tolist()
            # One by one: enlarged to a photo of 12 megapixels a mask takes 48 MB.
            for mask, choice in zip(outputs.pred_masks[0].float(), best, strict=True):
                (large,) = processor.image_processor.post_process_masks([mask[None, choice, None]], *sizes)
                yield large[0, 0].cpu().numpy()


def load_checkpoint(
    role: str,
    classes: dict[str, tuple[Any, Any]],
    model: str,
    revision: str | None,
    device: str | None,
    dtype: torch.dtype,
) -> Checkpoint:
    """
    Load a model and its processor from safetensors.

    Args:
        role (`str`): Name of the argument that gives the model, for the message.
        classes (`dict[str, tuple[type, type]]`): Classes of the model and its processor by `model_type`.
        model, revision, device, dtype: See [`GroundingDino`].

    Raises:
        PerceptionModelError: The model does not exist or cannot be loaded.
    """
    try:
        revision, recorded = resolve_revision(model, revision)
        kind = AutoConfig.from_pretrained(model, revision=revision).model_type
        if kind not in classes:
            raise ValueError(f"it is of type {kind!r}")
        network_class, processor_class = classes[kind]
        processor = processor_class.from_pretrained(model, revision=revision)
        network = network_class.from_pretrained(model, revision=revision, use_safetensors=True, dtype=dtype)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise PerceptionModelError(
            f"`{role}` must be a folder or a Hub repository with safetensors, of type {' or '.join(classes)}, "
            f"got {model!r}: {why_not_loaded(error)}. What was finished is kept; correct the name or mend the cause, "
            "and run the same command again"
        ) from error
    network = network.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
    return Checkpoint(model, recorded, network, processor)


def suppress_duplicates(detections: Sequence[GroundedBox]) -> list[GroundedBox]:
    """
    Keep the best box of each thing, best first: boxes of one name with an intersection over union above `NMS_IOU` are
    one thing.
    """
    if not detections:
        return []
    names = sorted({detection.name for detection in detections})
    kept = batched_nms(
        torch.tensor([detection.box for detection in detections], dtype=torch.float32),
        torch.tensor([detection.score for detection in detections]),
        torch.tensor([names.index(detection.name) for detection in detections]),
        NMS_IOU,
    )
    return [detections[index] for index in kept.tolist()]


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Divide items into runs of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _row(embeddings: torch.Tensor | list[torch.Tensor], row: int) -> Any:
    """Return the embeddings of one image: SAM has one tensor, SAM 2 one for each resolution."""
    if isinstance(embeddings, list):
        return [level[row : row + 1] for level in embeddings]
    return embeddings[row : row + 1]
