"""Rollouts are those of the stock pipelines, and their gradients those of the last steps."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from diffusers import DDIMScheduler, FluxPipeline
from diffusers.utils import is_sentencepiece_available

from datasets_script.utils.errors import ArgumentError
from diffusers_artifact.family import Conditioning
from training.denoiser.lora import LoraSettings, add_lora, load_base_lora, save_lora, without_lora
from training.denoiser.rollout import Conditions, Denoiser, SamplingSettings

from ...helpers.tiny_pipelines import (
    TEXT_DIM,
    tiny_chroma,
    tiny_flux,
    tiny_kolors,
    tiny_sd,
    tiny_sd3,
    tiny_sdxl,
)


# Prompts are encoded one by one here, and in a batch by the pipelines.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
SIZE = {"height": 48, "width": 64}
PROMPTS, SEEDS = ["a cat", "two dogs"], [3, 4]
STEPS = 4
PIPELINES = {
    "schnell": (lambda: tiny_flux(guidance=False), 0.0),
    "dev": (tiny_flux, 3.5),
    "SD3.5": (tiny_sd3, 7.0),
    "SD3.5, no guidance": (tiny_sd3, 1.0),
    "SDXL": (tiny_sdxl, 5.0),
    "SD1.5": (tiny_sd, 7.5),
    "SD2": (lambda: tiny_sd("v_prediction"), 7.5),
}


def settings_for(name: str, scale: float, **changes) -> SamplingSettings:
    length = 16 if name in ("schnell", "dev") else None
    return SamplingSettings(STEPS, scale, **SIZE, **{"max_sequence_length": length, **changes})


def make(name: str, **changes) -> Denoiser:
    build, scale = PIPELINES[name]
    return Denoiser(build(), settings_for(name, scale, **changes))


def stock_images(pipe, scale: float, length: int | None = None, **options) -> torch.Tensor:
    pipe.set_progress_bar_config(disable=True)
    more = {} if length is None else {"max_sequence_length": length}
    return pipe(
        num_inference_steps=STEPS,
        guidance_scale=scale,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        output_type="pt",
        **SIZE,
        **more,
        **options,
    ).images


def my_images(denoiser: Denoiser, conditions: Conditions) -> torch.Tensor:
    with torch.no_grad():
        return denoiser.decode(denoiser.rollout(denoiser.start(denoiser.noise(SEEDS)), conditions))


@pytest.mark.parametrize("name", PIPELINES)
def test_images_are_the_stock_pipelines(name):
    denoiser, scale = make(name), PIPELINES[name][1]
    stock = stock_images(denoiser.pipeline, scale, denoiser.settings.max_sequence_length, prompt=PROMPTS)
    conditions = denoiser.encode_prompts(PROMPTS)
    torch.testing.assert_close(my_images(denoiser, conditions), stock, **CLOSE)
    torch.testing.assert_close(my_images(denoiser, conditions.select([1, 0])).flip(0), my_images_swapped(denoiser))
    denoiser.drop_text_encoders()
    with pytest.raises(RuntimeError, match="before `drop_text_encoders`"):
        denoiser.encode_prompts(PROMPTS)


def my_images_swapped(denoiser: Denoiser) -> torch.Tensor:
    """Return images of swapped prompts, flipped, by drawing each alone."""
    raise NotImplementedError
