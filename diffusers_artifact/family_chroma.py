"""Chroma: FLUX.1's blocks without guidance embedding, one text encoder, and a mask over the text."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ChromaPipeline

from .family import Conditioning, GuidanceKind
from .family_flux import FluxFamily


class ChromaFamily(FluxFamily):
    """
    Adapter of Chroma checkpoints, which take a negative prompt.

    The mask over the text is the stock pipeline's, dtype included. It counts one padding token, and a floating-point
    mask is added to the attention's logits, so that padding weighs less but is not left out.
    """

    transformer_class = "ChromaTransformer2DModel"
    text_components = ("text_encoder", "tokenizer")
    embedding_arguments = ("prompt_embeds", "prompt_embeds_mask")
    may_lack_text = False

    @property
    def guidance_kind(self) -> GuidanceKind:
        return "true"

    def encode_prompt(self, prompt: str, device: torch.device, max_sequence_length: int | None) -> Conditioning:
        names = ("scheduler", "vae", "text_encoder", "tokenizer", "transformer")
        stock = ChromaPipeline(**{name: self.components[name] for name in names})
        prompt_embeds, _, mask, *_ = stock.encode_prompt(
            prompt,
            device=device,
            do_classifier_free_guidance=False,
            max_sequence_length=max_sequence_length or 512,
        )
        return Conditioning(prompt_embeds, mask=mask)

    def conditioning_arguments(
        self, conditioning: Conditioning, guidance: torch.Tensor, num_tokens: int
    ) -> dict[str, Any]:
        mask = conditioning.mask
        assert mask is not None, "every Chroma prompt has a mask"
        if mask.is_floating_point():
            mask = mask.to(self.transformer.dtype)
        return {"attention_mask": torch.cat([mask, mask.new_ones(len(mask), num_tokens)], dim=1)}
