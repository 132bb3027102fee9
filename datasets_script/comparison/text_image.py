"""How images fit their prompts: CLIP-T and PickScore, both from CLIP models of transformers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from ..utils.errors import ArgumentError
from ..utils.files import resolve_revision
from ..utils.hub_access import why_not_loaded
from ..utils.hub_ids import last_name
from .measures import Column
from .settings import PICKSCORE


logger = logging.getLogger(__name__)

# The one that its card loads it with.
_PROCESSOR_OF_PICKSCORE = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


class TextImageMeasure:
    """
    Cosine of the embeddings of image and prompt. CLIP-T is the cosine; PickScore is scaled by the model's temperature,
    as in its published tables, which gives values of about 20.

    Args:
        name (`str`): `"clip_t"` or `"pickscore"`.
        model (`str`): Folder, or id on the Hub, of a CLIP model.
        device (`str`): Device.
        processor (`str`, *optional*): Folder or id of its processor; by default `model`.

    Raises:
        ArgumentError: The model cannot be loaded, or is no CLIP model.
    """

    def __init__(self, name: str, model: str, device: str, processor: str | None = None) -> None:
        from transformers import CLIPModel, CLIPProcessor

        self.columns = (Column(name, {"clip_t": "CLIP-T", "pickscore": "PickScore"}[name], "higher"),)
        self.name, self.model, self.is_scaled = name, model, name == "pickscore"
        argument = "clip" if name == "clip_t" else name
        try:
            commit, self.revision = resolve_revision(model, None)
            self.network = CLIPModel.from_pretrained(model, revision=commit, use_safetensors=True)
            self.processor = CLIPProcessor.from_pretrained(processor or model)
        except (OSError, ValueError, KeyError) as error:
            raise ArgumentError(
                f"`{argument}` must be a folder or a repository on the Hub of a CLIP model with safetensors, got "
                f"'{model}': {why_not_loaded(error)}"
            ) from error
        self.network.to(device).eval().requires_grad_(False)
        self.longest = self.network.config.text_config.max_position_embeddings

    @torch.no_grad()
    def __call__(self, images: list[Image.Image], prompts: list[str]) -> list[dict[str, float]]:
        """Measure images; see [`~datasets_script.comparison.measures.Measure`]."""
        self._warn_of_long(prompts)
        device = self.network.device
        text = self.processor(
            text=prompts, padding=True, truncation=True, max_length=self.longest, return_tensors="pt"
        ).to(device)
        pixels = self.processor(images=images, return_tensors="pt").to(device)
        output = self.network(**text, **pixels)
        cosines = (output.image_embeds * output.text_embeds).sum(dim=1)
        if self.is_scaled:
            cosines = self.network.logit_scale.exp() * cosines
        return [{self.name: float(value)} for value in cosines]

    def identity(self) -> dict[str, Any]:
        """Return everything that values depend on, JSON-serialisable."""
        return {"model": last_name(self.model), "revision": self.revision}

    def chose(self, scorer: Mapping[str, Any]) -> bool:
        """Return `False`: `artiagent generate` does not choose by prompts."""
        return False

    def _warn_of_long(self, prompts: Sequence[str]) -> None:
        lengths = [len(tokens) for tokens in self.processor.tokenizer(list(prompts)).input_ids]
        if too_long := sum(length > self.longest for length in lengths):
            logger.warning(
                "%s reads the first %d tokens of a prompt; %d prompts of this batch are longer",
                self.columns[0].words,
                self.longest,
                too_long,
            )


def clip_t(model: str, device: str) -> TextImageMeasure:
    """Load the measure CLIP-T; see [`TextImageMeasure`]."""
    return TextImageMeasure("clip_t", model, device)


def pickscore(model: str, device: str) -> TextImageMeasure:
    """Load the measure PickScore; see [`TextImageMeasure`]."""
    return TextImageMeasure("pickscore", model, device, _PROCESSOR_OF_PICKSCORE if model == PICKSCORE else None)
