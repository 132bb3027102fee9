"""FLUX.2: single-stream blocks share one projection of attention and MLP; latents are normalised after patching."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import Flux2KleinPipeline, Flux2Pipeline
from diffusers.loaders.lora_pipeline import Flux2LoraLoaderMixin
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

from .family import Conditioning, GuidanceKind, TransformerFamily
from .family_flux import FluxInjectionAttnProcessor, RotaryInjectionAttnProcessor


if TYPE_CHECKING:
    # Not `from .x import y`: of a repository on the Hub, diffusers fetches a file once for every such line that leads
    # to it, from each module that leads there.
    from . import injection, processors

    InjectionState = injection.InjectionState
    InjectionAttnProcessor = processors.InjectionAttnProcessor


class Flux2ParallelInjectionAttnProcessor(RotaryInjectionAttnProcessor):
    """Injecting processor of FLUX.2's single-stream blocks, which compute attention and MLP together."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        widths = [3 * attn.inner_dim, attn.mlp_hidden_dim * attn.mlp_mult_factor]
        qkv, mlp = attn.to_qkv_mlp_proj(hidden_states).split(widths, dim=-1)
        query, key, value = (part.unflatten(-1, (-1, attn.head_dim)) for part in qkv.chunk(3, dim=-1))
        query, value = self.inject(query, value, self.text_length(image_rotary_emb))
        output = self.attend(attn.norm_q(query), attn.norm_k(key), value, attention_mask, image_rotary_emb)
        return attn.to_out(torch.cat([output, attn.mlp_act_fn(mlp)], dim=-1))


class Flux2Family(TransformerFamily):
    """
    Adapter of FLUX.2 checkpoints: dev, which is guidance-distilled, and klein base, which takes a negative prompt.
    Latents are normalised by the autoencoder's batch statistics, which differ between the four pixels of a token.
    """

    transformer_class = "Flux2Transformer2DModel"
    lora_loader = Flux2LoraLoaderMixin
    block_lists = ("transformer_blocks", "single_transformer_blocks")

    @property
    def guidance_kind(self) -> GuidanceKind:
        return "distilled" if self.transformer.config.guidance_embeds else "true"

    @property
    def default_guidance_scale(self) -> float:
        return (
            4.0 if self.guidance_kind == "distilled" else 1.0
        )  # of the stock pipeline; the paper does not use FLUX.2

    def encode_images(self, images: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        latents = self.raw_latents(images, generator)
        mean, std = self._statistics(latents)
        return (latents - mean) / std

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        mean, std = self._statistics(latents)
        return self.vae.decode((latents * std + mean).to(self.vae.dtype), return_dict=False)[0]

    def _statistics(self, latents: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return mean and standard deviation of every latent pixel, of shape `(1, channels, height, width)`."""
        rows, columns = (side // self.token_side for side in latents.shape[-2:])
        norm = self.vae.bn
        parts = (norm.running_mean, torch.sqrt(norm.running_var + self.vae.config.batch_norm_eps))
        # The statistics are one token's, with its four pixels as channels.
        return tuple(self.unpack(part[None, None], (1, 1)).to(latents).repeat(1, 1, rows, columns) for part in parts)

    def encode_prompt(self, prompt: str, device: torch.device, max_sequence_length: int | None) -> Conditioning:
        names = ("scheduler", "vae", "text_encoder", "tokenizer", "transformer")
        is_klein = self.components["text_encoder"].config.model_type == "qwen3"
        stock = (Flux2KleinPipeline if is_klein else Flux2Pipeline)(**{name: self.components[name] for name in names})
        prompt_embeds, _ = stock.encode_prompt(prompt, device=device, max_sequence_length=max_sequence_length or 512)
        return Conditioning(prompt_embeds)

    def timestep_arguments(self, num_inference_steps: int, num_tokens: int, scheduler: Any) -> dict[str, Any]:
        sigmas = np.linspace(1.0, 1 / num_inference_steps, num_inference_steps)
        return {"sigmas": sigmas, "mu": compute_empirical_mu(num_tokens, num_inference_steps)}

    def velocity(
        self,
        tokens: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Conditioning,
        guidance: torch.Tensor,
        grid: tuple[int, int],
    ) -> torch.Tensor:
        batch, dtype = len(tokens), self.transformer.dtype
        # Positions have four axes: image, row, column, text token.
        zero, rows, columns, text = (
            torch.arange(length, device=tokens.device) for length in (1, *grid, conditioning.prompt_embeds.shape[1])
        )
        return self.transformer(
            hidden_states=tokens.to(dtype),
            timestep=timestep.expand(batch).to(dtype) / 1000,
            guidance=guidance if self.guidance_kind == "distilled" else None,
            encoder_hidden_states=conditioning.prompt_embeds.to(dtype),
            txt_ids=torch.cartesian_prod(zero, zero, zero, text),
            img_ids=torch.cartesian_prod(zero, rows, columns, zero),
            return_dict=False,
        )[0]

    def make_processor(self, state: InjectionState, block: int, path: str) -> InjectionAttnProcessor:
        single = path.startswith("single_transformer_blocks")
        return (Flux2ParallelInjectionAttnProcessor if single else FluxInjectionAttnProcessor)(state, block)
