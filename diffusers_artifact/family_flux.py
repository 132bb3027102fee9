"""FLUX.1: rotary embeddings in every block, text tokens first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import FluxPipeline
from diffusers.loaders.lora_pipeline import FluxLoraLoaderMixin
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb

from .family import Conditioning, GuidanceKind, TransformerFamily, dynamic_shift
from .processors import InjectionAttnProcessor, project, split_output


if TYPE_CHECKING:
    # Not `from .x import y`: of a repository on the Hub, diffusers fetches a file once for every such line that leads
    # to it, from each module that leads there.
    from . import injection

    InjectionState = injection.InjectionState


class RotaryInjectionAttnProcessor(InjectionAttnProcessor):
    """Base of the processors of FLUX-like models, whose positions are a table of cosines and sines, text first."""

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """
        Compute attention with queries and keys at the injected positions.

        Args:
            query, key, value (`torch.Tensor` of shape `(rows, sequence, heads, head_dim)`): Before rotation.
            attention_mask (`torch.Tensor`, *optional*): As the transformer passes it.
            image_rotary_emb (`tuple[torch.Tensor, torch.Tensor]` of shape `(sequence, head_dim)`): Cosines and sines.

        Returns:
            `torch.Tensor` of shape `(rows, sequence, heads * head_dim)`.
        """

        def turn(states: torch.Tensor, index: torch.Tensor | None) -> torch.Tensor:
            table = image_rotary_emb if index is None else tuple(part[index] for part in image_rotary_emb)
            return apply_rotary_emb(states, table, sequence_dim=1)

        text_length = self.text_length(image_rotary_emb)
        query, key = self.rotate(query, turn, text_length), self.rotate(key, turn, text_length)
        query, key, value, attention_mask = self.share(query, key, value, attention_mask)
        output = dispatch_attention_fn(
            query,
            key,
            value,
            attn_mask=attention_mask,
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )
        return self.collect(output.flatten(2, 3).to(query.dtype))

    def text_length(self, image_rotary_emb: tuple[torch.Tensor, torch.Tensor]) -> int:
        """Derive the number of text tokens, which single-stream blocks are not told."""
        return image_rotary_emb[0].shape[0] - self.state.num_tokens


class FluxInjectionAttnProcessor(RotaryInjectionAttnProcessor):
    """Injecting processor of FLUX's double- and single-stream blocks."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        query, key, value = (part.unflatten(-1, (-1, attn.head_dim)) for part in project(attn, hidden_states))
        # Single-stream blocks receive text and image tokens in one sequence.
        text_length = 0 if encoder_hidden_states is not None else self.text_length(image_rotary_emb)
        query, value = self.inject(query, value, text_length)
        query, key = attn.norm_q(query), attn.norm_k(key)

        if encoder_hidden_states is not None:
            text_query, text_key, text_value = (
                part.unflatten(-1, (-1, attn.head_dim)) for part in project(attn, encoder_hidden_states, of_text=True)
            )
            query = torch.cat([attn.norm_added_q(text_query), query], dim=1)
            key = torch.cat([attn.norm_added_k(text_key), key], dim=1)
            value = torch.cat([text_value, value], dim=1)

        output = self.attend(query, key, value, attention_mask, image_rotary_emb)
        if encoder_hidden_states is None:
            return output
        return split_output(attn, output, encoder_hidden_states.shape[1])


class FluxFamily(TransformerFamily):
    """
    Adapter of FLUX.1 checkpoints (ArtiAgent §4.2). Checkpoints without text encoders, such as the embedded model, are
    conditioned on a single zero token.
    """

    transformer_class = "FluxTransformer2DModel"
    lora_loader = FluxLoraLoaderMixin
    text_components: tuple[str, ...] = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    block_lists = ("transformer_blocks", "single_transformer_blocks")
    embedding_arguments: tuple[str, ...] = ("prompt_embeds", "pooled_prompt_embeds")
    may_lack_text = True

    @property
    def guidance_kind(self) -> GuidanceKind:
        return "distilled" if self.transformer.config.guidance_embeds else "none"

    @property
    def default_guidance_scale(self) -> float:
        return 5.0 if self.guidance_kind == "distilled" else 1.0  # ArtiAgent §4.2

    def distillation(self, name: str) -> str | None:
        config = self.components["scheduler"].config
        if self.guidance_kind == "none" and not config.use_dynamic_shifting:
            return "it has FLUX.1-schnell's configuration: no guidance embedding and a fixed schedule"
        return super().distillation(name)

    def encode_prompt(self, prompt: str, device: torch.device, max_sequence_length: int | None) -> Conditioning:
        config = self.transformer.config
        if self.components["text_encoder"] is None:
            if prompt:
                raise ValueError(f"`prompt` must be empty for a checkpoint without text encoders, got {prompt!r}")
            return Conditioning(
                torch.zeros(1, 1, config.joint_attention_dim, device=device),
                torch.zeros(1, config.pooled_projection_dim, device=device),
            )
        names = ("scheduler", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "transformer")
        stock = FluxPipeline(**{name: self.components[name] for name in names})
        # The stock default, unless the checkpoint's texts are shorter.
        longest = min(512, self.components["tokenizer_2"].model_max_length)
        prompt_embeds, pooled, _ = stock.encode_prompt(
            prompt, device=device, max_sequence_length=max_sequence_length or longest
        )
        return Conditioning(prompt_embeds, pooled)

    def timestep_arguments(self, num_inference_steps: int, num_tokens: int, scheduler: Any) -> dict[str, Any]:
        config = scheduler.config
        sigmas = np.linspace(1.0, 1 / num_inference_steps, num_inference_steps)
        if not config.use_dynamic_shifting:
            return {"sigmas": sigmas}
        return {"sigmas": sigmas, "mu": dynamic_shift(num_tokens, config)}

    def velocity(
        self,
        tokens: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Conditioning,
        guidance: torch.Tensor,
        grid: tuple[int, int],
    ) -> torch.Tensor:
        batch, dtype, device = len(tokens), self.transformer.dtype, tokens.device
        conditioning = conditioning.to(dtype)
        rows, columns = torch.meshgrid(*(torch.arange(side, device=device) for side in grid), indexing="ij")
        image_ids = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).view(-1, 3).to(dtype)
        return self.transformer(
            hidden_states=tokens.to(dtype),
            timestep=(timestep / 1000).expand(batch).to(dtype),
            encoder_hidden_states=conditioning.prompt_embeds,
            txt_ids=torch.zeros(conditioning.prompt_embeds.shape[1], 3, device=device, dtype=dtype),
            img_ids=image_ids,
            return_dict=False,
            **self.conditioning_arguments(conditioning, guidance, tokens.shape[1]),
        )[0]

    def conditioning_arguments(
        self, conditioning: Conditioning, guidance: torch.Tensor, num_tokens: int
    ) -> dict[str, Any]:
        """Return the transformer's arguments that differ between FLUX.1 and its relatives; see `velocity`."""
        return {
            "guidance": guidance if self.guidance_kind == "distilled" else None,
            "pooled_projections": conditioning.pooled,
        }

    def make_processor(self, state: InjectionState, block: int, path: str) -> InjectionAttnProcessor:
        return FluxInjectionAttnProcessor(state, block)
