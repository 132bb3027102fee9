"""Tiny pipelines with weights for inpainting or editing, and of Z-Image, built without a download."""

from __future__ import annotations

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    FluxControlNetInpaintPipeline,
    FluxControlNetModel,
    FluxFillPipeline,
    FluxKontextPipeline,
    FluxTransformer2DModel,
    QwenImageControlNetInpaintPipeline,
    QwenImageControlNetModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import Qwen3Config, Qwen3ForCausalLM

from .tiny_pipelines import _SMALL_LANGUAGE_MODEL, TEXT_DIM, _byte_tokenizer, _vae, tiny_flux, tiny_qwen_image


def tiny_flux_fill() -> FluxFillPipeline:
    """Make a FLUX.1-Fill, whose transformer sees mask and masked picture."""
    base = tiny_flux()
    torch.manual_seed(0)
    config = {**base.transformer.config, "in_channels": 384, "out_channels": 64, "num_layers": 1}
    config.pop("_use_default_values")  # the number of output channels is one of them
    transformer = FluxTransformer2DModel.from_config(config).eval()
    return FluxFillPipeline(**_shared(base), transformer=transformer)


def tiny_flux_kontext() -> FluxKontextPipeline:
    """Make a FLUX.1-Kontext."""
    base = tiny_flux()
    return FluxKontextPipeline(**_shared(base), transformer=base.transformer)


def tiny_flux_controlnet() -> FluxControlNetInpaintPipeline:
    """Make a FLUX.1 with a ControlNet."""
    base = tiny_flux()
    controlnet = FluxControlNetModel.from_transformer(
        base.transformer, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2
    )
    return FluxControlNetInpaintPipeline(**_shared(base), transformer=base.transformer, controlnet=controlnet.eval())


def tiny_qwen_controlnet() -> QwenImageControlNetInpaintPipeline:
    """Make a Qwen-Image with a ControlNet for inpainting, which sees the mask."""
    base = tiny_qwen_image()
    controlnet = QwenImageControlNetModel.from_transformer(
        base.transformer, num_layers=1, attention_head_dim=16, num_attention_heads=2, extra_condition_channels=4
    )
    return QwenImageControlNetInpaintPipeline(**base.components, controlnet=controlnet.eval())


def tiny_z_image() -> ZImagePipeline:
    """Make a Z-Image with two blocks; one token is 16×16 px."""
    tokenizer = _byte_tokenizer(["<|im_start|>", "<|im_end|>"])
    tokenizer.chat_template = "{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}"
    torch.manual_seed(0)
    text_encoder = Qwen3ForCausalLM(Qwen3Config(**_SMALL_LANGUAGE_MODEL, num_hidden_layers=2))
    transformer = ZImageTransformer2DModel(
        in_channels=16,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=TEXT_DIM,
        axes_dims=[4, 6, 6],
        axes_lens=[1024, 64, 64],
    )
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        transformer=transformer.eval(),
    )


def _shared(base: object) -> dict[str, object]:
    names = ("scheduler", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    return {name: getattr(base, name) for name in names}
