"""Stable Diffusion 3 and 3.5: a position table that is added once at the patch embedding, image tokens first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from diffusers import StableDiffusion3Pipeline
from diffusers.loaders.lora_pipeline import SD3LoraLoaderMixin
from diffusers.models.attention_processor import FusedJointAttnProcessor2_0

from .family import Conditioning, GuidanceKind, TransformerFamily, dynamic_shift
from .processors import InjectionAttnProcessor, project


if TYPE_CHECKING:
    # Not `from .x import y`: of a repository on the Hub, diffusers fetches a file once for every such line that leads
    # to it, from each module that leads there.
    from . import injection

    InjectionState = injection.InjectionState


class SD3InjectionAttnProcessor(InjectionAttnProcessor):
    """
    Injecting processor of the joint attention of SD3's blocks, and of the second, image-only attention of SD3.5's.

    Args:
        state (`InjectionState`): State that all processors of a call share.
        block (`int`): Index of the block.
        name (`str`): `"attn"` or `"attn2"`.
        fused (`bool`): Whether one projection gives queries, keys and values. `attn.fused_projections` does not say,
            because this family's `unfuse_qkv_projections` leaves it set.
    """

    def __init__(self, state: InjectionState, block: int, name: str, fused: bool):
        super().__init__(state, block, name)
        self.fused = fused

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        query, key, value = self._project(attn, hidden_states)
        query, value = (part.transpose(1, 2) for part in self.inject(query.transpose(1, 2), value.transpose(1, 2)))
        if attn.norm_q is not None:
            query, key = attn.norm_q(query), attn.norm_k(key)

        if encoder_hidden_states is not None:
            text_query, text_key, text_value = self._project(attn, encoder_hidden_states, of_text=True)
            if attn.norm_added_q is not None:
                text_query, text_key = attn.norm_added_q(text_query), attn.norm_added_k(text_key)
            query = torch.cat([query, text_query], dim=2)
            key = torch.cat([key, text_key], dim=2)
            value = torch.cat([value, text_value], dim=2)

        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        query, key, value, attention_mask = self.share(query, key, value, attention_mask, text_first=False)
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        output = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
        output = self.collect(output.transpose(1, 2).flatten(2).to(query.dtype))
        image = attn.to_out[1](attn.to_out[0](output[:, : hidden_states.shape[1]]))
        if encoder_hidden_states is None:
            return image
        text = output[:, hidden_states.shape[1] :]
        return image, text if attn.context_pre_only else attn.to_add_out(text)

    def _project(self, attn: Any, hidden_states: torch.Tensor, of_text: bool = False) -> tuple[torch.Tensor, ...]:
        """Compute queries, keys and values of shape `(rows, heads, tokens, head_dim)`."""
        parts = project(attn, hidden_states, of_text, self.fused)
        return tuple(part.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in parts)


class SD3Family(TransformerFamily):
    """
    Adapter of Stable Diffusion 3 and 3.5. Position injection swaps rows of the sin-cos table at the input. Unlike on
    FLUX, the change also enters the residual stream, so that values and MLPs of every block see it.
    """

    transformer_class = "SD3Transformer2DModel"
    lora_loader = SD3LoraLoaderMixin
    text_components = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    embedding_arguments = ("prompt_embeds", "pooled_prompt_embeds")
    position_blocks_reason = "its positions are added once at the patch embedding and enter every block"

    @property
    def input_channels(self) -> int:
        return self.vae.config.latent_channels

    @property
    def guidance_kind(self) -> GuidanceKind:
        return "true"

    def encode_prompt(self, prompt: str, device: torch.device, max_sequence_length: int | None) -> Conditioning:
        names = ("scheduler", "vae", "transformer", *self.text_components, "text_encoder_3", "tokenizer_3")
        stock = StableDiffusion3Pipeline(**{name: self.components[name] for name in names})
        prompt_embeds, _, pooled, _ = stock.encode_prompt(
            prompt,
            prompt_2=None,
            prompt_3=None,
            device=device,
            do_classifier_free_guidance=False,
            max_sequence_length=max_sequence_length or 256,
        )
        return Conditioning(prompt_embeds, pooled)

    def timestep_arguments(self, num_inference_steps: int, num_tokens: int, scheduler: Any) -> dict[str, Any]:
        arguments: dict[str, Any] = {"num_inference_steps": num_inference_steps}
        if scheduler.config.use_dynamic_shifting:
            arguments["mu"] = dynamic_shift(num_tokens, scheduler.config)
        return arguments

    def velocity(
        self,
        tokens: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Conditioning,
        guidance: torch.Tensor,
        grid: tuple[int, int],
    ) -> torch.Tensor:
        batch, dtype = len(tokens), self.transformer.dtype
        conditioning = conditioning.to(dtype)
        if tokens.shape[1] != grid[0] * grid[1]:
            # Any rectangle will do for rows of targets; see `injecting` for their positions.
            width = self.target_row_multiple(grid)
            grid = (tokens.shape[1] // width, width)
        velocity = self.transformer(
            hidden_states=self.unpack(tokens, grid).to(dtype),
            timestep=timestep.expand(batch),
            encoder_hidden_states=conditioning.prompt_embeds,
            pooled_projections=conditioning.pooled,
            return_dict=False,
        )[0]
        return self.pack(velocity)

    def target_row_multiple(self, grid: tuple[int, int]) -> int:
        # The widest image that there are positions for, or long rows would be too high.
        return self.transformer.config.pos_embed_max_size

    def make_processor(self, state: InjectionState, block: int, path: str) -> InjectionAttnProcessor:
        fused = isinstance(self.transformer.attn_processors[path], FusedJointAttnProcessor2_0)
        return SD3InjectionAttnProcessor(state, block, path.split(".")[2], fused)

    @contextmanager
    def injecting(self, state: InjectionState) -> Iterator[None]:
        def swap_positions(embedder: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
            if state.target_positions is not None:
                placed = embedder.cropped_pos_embed(*(self.token_side * side for side in state.grid))[0]
                own = embedder.cropped_pos_embed(*inputs[0].shape[-2:])[0]
                return output + (placed[state.target_positions] - own).to(output)
            if state.moved is None:
                return output
            rows, targets, references = state.moved
            table = embedder.cropped_pos_embed(*inputs[0].shape[-2:])[0].to(output)
            output[rows, targets] += table[references] - table[targets]
            return output

        handle = self.transformer.pos_embed.register_forward_hook(swap_positions)
        try:
            with super().injecting(state):
                yield
        finally:
            handle.remove()
