"""Stable Diffusion 1.5, 2 and SDXL: U-Nets that predict noise or v, for DDIM."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.loaders.lora_base import LoraBaseMixin
from diffusers.loaders.lora_pipeline import StableDiffusionLoraLoaderMixin, StableDiffusionXLLoraLoaderMixin

from .family import Conditioning, GuidanceKind, ModelFamily


PREDICTION_TYPES = ("epsilon", "v_prediction")


class UNetFamily(ModelFamily):
    r"""
    Adapter of Stable Diffusion 1.5 and 2, and of SDXL, which the configuration of the U-Net tells apart. A token is
    one latent pixel.

    Args:
        unet (`~diffusers.UNet2DConditionModel`): The U-Net.
        components (`dict[str, Any]`): All components of the pipeline by name.
        force_zeros_for_empty_prompt (`bool`, *optional*, defaults to `True`): Whether SDXL's empty negative prompt is
            all zeros, as its configuration says.
    """

    component = "unet"
    token_side = 1

    def __init__(self, unet: Any, components: dict[str, Any], force_zeros_for_empty_prompt: bool = True):
        super().__init__(unet, components)
        self.force_zeros_for_empty_prompt = force_zeros_for_empty_prompt

    @property
    def model_class(self) -> str:
        return "UNet2DConditionModel"

    @property
    def is_xl(self) -> bool:
        """Whether the U-Net takes SDXL's added conditions: pooled text, and sizes."""
        return self.model.config.addition_embed_type == "text_time"

    @property
    def lora_loader(self) -> type[LoraBaseMixin]:  # type: ignore[override]
        return StableDiffusionXLLoraLoaderMixin if self.is_xl else StableDiffusionLoraLoaderMixin

    @property
    def text_components(self) -> tuple[str, ...]:  # type: ignore[override]
        of_both = ("text_encoder", "tokenizer")
        return (*of_both, "text_encoder_2", "tokenizer_2") if self.is_xl else of_both

    @property
    def embedding_arguments(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("prompt_embeds", "pooled_prompt_embeds") if self.is_xl else ("prompt_embeds",)

    @property
    def guidance_kind(self) -> GuidanceKind:
        return "true"

    @property
    def prediction_type(self) -> str:
        """What the U-Net predicts, `"epsilon"` or `"v_prediction"`, as the checkpoint's scheduler says."""
        return str(self.components["scheduler"].config.get("prediction_type", "epsilon"))

    def distillation(self, name: str) -> str | None:
        if self.model.config.time_cond_proj_dim is not None:
            return "its U-Net takes the guidance scale, as latent consistency models do"
        return super().distillation(name)

    def check(self, encodes_prompts: bool = True) -> None:
        """
        Check that the checkpoint is supported.

        Args:
            encodes_prompts (`bool`, *optional*, defaults to `True`): Whether its text encoders are needed.

        Raises:
            ValueError: As in [`ModelFamily.check`], or the scheduler's prediction type or the U-Net's added conditions
                are not those of Stable Diffusion or of SDXL's base model.
        """
        super().check(encodes_prompts)
        if self.prediction_type not in PREDICTION_TYPES:
            raise ValueError(
                f"`scheduler` must have the prediction type {' or '.join(PREDICTION_TYPES)}, got "
                f"{self.prediction_type!r}"
            )
        config = self.model.config
        if config.addition_embed_type not in (None, "text_time") or config.class_embed_type is not None:
            raise ValueError(
                "`unet` must take no added conditions, or those of SDXL, got `addition_embed_type` "
                f"{config.addition_embed_type!r} and `class_embed_type` {config.class_embed_type!r}"
            )

    # Autoencoder

    def encode_images(self, images: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        with self._upcast_vae():
            return super().encode_images(images, generator)

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        with self._upcast_vae():
            return super().decode_latents(latents)

    @contextmanager
    def _upcast_vae(self) -> Iterator[None]:
        """Run SDXL's autoencoder in float32 where its activations exceed float16, as its configuration says."""
        if self.vae.dtype != torch.float16 or not self.vae.config.force_upcast:
            yield
            return
        self.vae.to(torch.float32)
        try:
            yield
        finally:
            self.vae.to(torch.float16)

    # U-Net

    def encode_prompt(self, prompt: str, device: torch.device, max_sequence_length: int | None) -> Conditioning:
        if max_sequence_length is not None:
            raise ValueError(
                f"`max_sequence_length` must be None for {self.model_class}, whose texts have a fixed length, got "
                f"{max_sequence_length}"
            )
        parts = {name: self.components[name] for name in ("vae", "unet", *self.text_components)}
        # The stock pipelines edit old schedulers' configurations, and encoding needs none.
        if not self.is_xl:
            stock = StableDiffusionPipeline(
                **parts, scheduler=None, safety_checker=None, feature_extractor=None, requires_safety_checker=False
            )
            prompt_embeds, _ = stock.encode_prompt(prompt, device, 1, do_classifier_free_guidance=False)
            return Conditioning(prompt_embeds)
        stock = StableDiffusionXLPipeline(**parts, scheduler=None, add_watermarker=False)
        prompt_embeds, _, pooled, _ = stock.encode_prompt(prompt, device=device, do_classifier_free_guidance=False)
        return Conditioning(prompt_embeds, pooled)

    def encode_negative(self, prompt: str, device: torch.device, max_sequence_length: int | None) -> Conditioning:
        encoded = self.encode_prompt(prompt, device, max_sequence_length)
        if prompt or encoded.pooled is None or not self.force_zeros_for_empty_prompt:
            return encoded
        return replace(
            encoded, prompt_embeds=torch.zeros_like(encoded.prompt_embeds), pooled=torch.zeros_like(encoded.pooled)
        )

    def output(self, latents: torch.Tensor, timestep: int | torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        r"""
        Evaluate the U-Net.

        Args:
            latents (`torch.Tensor` of shape `(rows, channels, height, width)`): Noisy latents.
            timestep (`int` or `torch.Tensor` of shape `()` or `(rows,)`): Timestep, from 0.
            conditioning (`Conditioning`): Text conditioning of as many rows.

        Returns:
            `torch.Tensor` of the shape and dtype of `latents`: Noise, or v; see `prediction_type`.
        """
        dtype = self.model.dtype
        conditioning = conditioning.to(dtype)
        added = None
        if conditioning.pooled is not None:
            height, width = (side * self.patch_size for side in latents.shape[-2:])
            # Original size, upper left corner of the crop, and target size: an image that was not cropped.
            sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=dtype, device=latents.device)
            added = {"text_embeds": conditioning.pooled, "time_ids": sizes.expand(len(latents), -1)}
        return self.model(
            latents.to(dtype),
            timestep,
            encoder_hidden_states=conditioning.prompt_embeds,
            added_cond_kwargs=added,
            return_dict=False,
        )[0].to(latents.dtype)
