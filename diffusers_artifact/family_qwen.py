"""Qwen-Image: only double-stream blocks, rotations by complex numbers, a video autoencoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import QwenImagePipeline
from diffusers.loaders.lora_pipeline import QwenImageLoraLoaderMixin
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_qwenimage import apply_rotary_emb_qwen

from .family import Conditioning, GuidanceKind, TransformerFamily, dynamic_shift
from .processors import InjectionAttnProcessor, project, split_output


if TYPE_CHECKING:
    # Not `from .x import y`: of a repository on the Hub, diffusers fetches a file once for every such line that leads
    # to it, from each module that leads there.
    from . import injection

    InjectionState = injection.InjectionState


# Unsupported settings of the transformer, and why.
UNSUPPORTED = {
    "guidance_embeds": "diffusers' transformer fails on a guidance scale",
    "use_additional_t_cond": "layered checkpoints denoise several layers of an image at once",
    "use_layer3d_rope": "layered checkpoints denoise several layers of an image at once",
}


class QwenImageInjectionAttnProcessor(InjectionAttnProcessor):
    """Injecting processor of Qwen-Image's blocks."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor],
        encoder_hidden_states_mask: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # diffusers before 0.39 passes the joint mask instead of the text's.
        if encoder_hidden_states_mask is not None:
            image_mask = encoder_hidden_states_mask.new_ones(hidden_states.shape[:2])
            attention_mask = torch.cat([encoder_hidden_states_mask, image_mask], dim=1)[:, None, None]

        # The stock processor never uses fused projections, whatever `attn.fused_projections` is.
        head_dim = attn.inner_dim // attn.heads
        query, key, value = (part.unflatten(-1, (-1, head_dim)) for part in project(attn, hidden_states, fused=False))
        text_query, text_key, text_value = (
            part.unflatten(-1, (-1, head_dim))
            for part in project(attn, encoder_hidden_states, of_text=True, fused=False)
        )
        query, value = self.inject(query, value)
        image_frequencies, text_frequencies = image_rotary_emb
        if self.state.target_positions is None:
            self.recording.frequencies = image_frequencies
        else:
            assert self.recording.frequencies is not None, "clean rows come first"
            image_frequencies = self.recording.frequencies

        def turn(states: torch.Tensor, index: torch.Tensor | None) -> torch.Tensor:
            frequencies = image_frequencies if index is None else image_frequencies[index]
            return apply_rotary_emb_qwen(states, frequencies, use_real=False)

        query, key = self.rotate(attn.norm_q(query), turn), self.rotate(attn.norm_k(key), turn)
        if text_query.shape[1]:  # diffusers cannot rotate no tokens
            text_query = apply_rotary_emb_qwen(attn.norm_added_q(text_query), text_frequencies, use_real=False)
            text_key = apply_rotary_emb_qwen(attn.norm_added_k(text_key), text_frequencies, use_real=False)

        query, key, value, attention_mask = self.share(
            torch.cat([text_query, query], dim=1),
            torch.cat([text_key, key], dim=1),
            torch.cat([text_value, value], dim=1),
            attention_mask,
        )
        output = dispatch_attention_fn(
            query,
            key,
            value,
            attn_mask=attention_mask,
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )
        output = self.collect(output.flatten(2, 3).to(query.dtype))
        return split_output(attn, output, encoder_hidden_states.shape[1])


class QwenImageFamily(TransformerFamily):
    """
    Adapter of Qwen-Image checkpoints. Their autoencoder encodes videos, so images are videos of one frame, and latents
    are normalised channel by channel.
    """

    transformer_class = "QwenImageTransformer2DModel"
    lora_loader = QwenImageLoraLoaderMixin

    @property
    def guidance_kind(self) -> GuidanceKind:
        return "true"

    def guide(self, conditional: torch.Tensor, unconditional: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """Apply true guidance, and rescale every token's velocity to the norm of the conditional one."""
        guided = super().guide(conditional, unconditional, scales)
        return guided * (conditional.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))

    def check(self, encodes_prompts: bool = True) -> None:
        """
        Check that the checkpoint is supported.

        Args:
            encodes_prompts (`bool`, *optional*, defaults to `True`): Whether its text encoders are needed.

        Raises:
            ValueError: As in [`TransformerFamily.check`], or a setting of the transformer is among `UNSUPPORTED`.
        """
        super().check(encodes_prompts)
        for setting, reason in UNSUPPORTED.items():
            if self.transformer.config.get(setting):
                raise ValueError(f"`transformer` must have `{setting}=False`, got True: {reason}")

    @property
    def input_channels(self) -> int:
        return self.vae.config.z_dim * self.token_side**2

    @property
    def patch_size(self) -> int:
        return self.token_side * 2 ** len(self.vae.config.temperal_downsample)

    def encode_images(self, images: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        latents = self.raw_latents(images[:, :, None], generator)
        mean, std = self._statistics(latents)
        return ((latents - mean) / std)[:, :, 0]  # (batch, channels, height, width)

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        latents = latents[:, :, None].to(self.vae.dtype)
        mean, std = self._statistics(latents)
        return self.vae.decode(latents * std + mean, return_dict=False)[0][:, :, 0]

    def _statistics(self, latents: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return mean and standard deviation of every channel, of shape `(1, channels, 1, 1, 1)`."""
        config = self.vae.config
        return tuple(
            latents.new_tensor(part).view(1, -1, 1, 1, 1) for part in (config.latents_mean, config.latents_std)
        )

    def encode_prompt(self, prompt: str, device: torch.device, max_sequence_length: int | None) -> Conditioning:
        names = ("scheduler", "vae", "text_encoder", "tokenizer", "transformer")
        stock = QwenImagePipeline(**{name: self.components[name] for name in names})
        prompt_embeds, mask = stock.encode_prompt(prompt, device, max_sequence_length=max_sequence_length or 512)
        return Conditioning(prompt_embeds, mask=mask)

    def timestep_arguments(self, num_inference_steps: int, num_tokens: int, scheduler: Any) -> dict[str, Any]:
        sigmas = np.linspace(1.0, 1 / num_inference_steps, num_inference_steps)
        return {"sigmas": sigmas, "mu": dynamic_shift(num_tokens, scheduler.config)}

    def velocity(
        self,
        tokens: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Conditioning,
        guidance: torch.Tensor,
        grid: tuple[int, int],
    ) -> torch.Tensor:
        batch, dtype = len(tokens), self.transformer.dtype
        if tokens.shape[1] != grid[0] * grid[1]:
            # Any rectangle will do for rows of targets, whose processors take the clean rows' positions.
            width = self.target_row_multiple(grid)
            grid = (tokens.shape[1] // width, width)
        return self.transformer(
            hidden_states=tokens.to(dtype),
            timestep=timestep.expand(batch).to(dtype) / 1000,
            encoder_hidden_states=conditioning.prompt_embeds.to(dtype),
            # diffusers fails on a mask of no tokens.
            encoder_hidden_states_mask=conditioning.mask if conditioning.prompt_embeds.shape[1] else None,
            img_shapes=[[(1, *grid)]] * batch,
            return_dict=False,
        )[0]

    def make_processor(self, state: InjectionState, block: int, path: str) -> InjectionAttnProcessor:
        return QwenImageInjectionAttnProcessor(state, block)
