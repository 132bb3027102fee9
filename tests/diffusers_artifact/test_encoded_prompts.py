"""Prompts that were encoded before a call give what the call would have encoded itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffusers_artifact import ArtifactInjectionPipeline, PatchMapping
from diffusers_artifact.family import Conditioning

from ..helpers.tiny_pipelines import tiny_chroma, tiny_flux, tiny_flux2_klein, tiny_qwen_image, tiny_sd3


GRID = (4, 6)
ARTIFACT = PatchMapping(targets=(0, 1), references=(14, 15), grid=GRID)
TEXT = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3")
FAMILIES = {
    "flux": tiny_flux,
    "flux2_klein": tiny_flux2_klein,
    "chroma": tiny_chroma,
    "sd3": tiny_sd3,
    "qwen": tiny_qwen_image,
}


def pipeline(components) -> ArtifactInjectionPipeline:
    pipe = ArtifactInjectionPipeline(**{name: part for name, part in components.items() if part is not None})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def photos(count: int) -> list[Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (count, GRID[0] * 16, GRID[1] * 16, 3), dtype=np.uint8)
    return [Image.fromarray(one) for one in pixels]


def arguments(encoded: list[Any]) -> dict[str, Any]:
    stacked = Conditioning.stack([Conditioning(*parts) for parts in encoded])
    return {
        "prompt_embeds": stacked.prompt_embeds,
        "pooled_prompt_embeds": stacked.pooled,
        "prompt_embeds_mask": stacked.mask,
    }


@pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)
def test_images_are_those_of_the_prompts_bit_for_bit_also_without_text_encoders(make):
    prompts, components = ["a cat", "a photo of two dogs"], make().components
    pipe = pipeline(components)
    options: dict[str, Any] = {"num_inference_steps": 2, "output_type": "latent"}
    called: Any = pipe(photos(2), [[ARTIFACT], [ARTIFACT]], prompt=prompts, **options)
    encoded = arguments([pipe.encode_prompt(text) for text in prompts])
    alone = pipeline({name: part for name, part in components.items() if name not in TEXT})
    for other in (pipe, alone):
        output: Any = other(photos(2), [[ARTIFACT], [ARTIFACT]], **encoded, **options)
        assert torch.equal(output.images, called.images)
        assert torch.equal(output.reconstructions, called.reconstructions)


def test_text_encoders_may_lie_elsewhere_once_prompts_are_encoded():
    pipe = pipeline(tiny_flux().components)
    encoded = arguments([pipe.encode_prompt("a cat")])
    pipe.text_encoder_2.to("meta")
    pipe.text_encoder.to("meta")
    assert pipe._execution_device == torch.device("cpu")
    pipe(photos(1), ARTIFACT, **encoded, num_inference_steps=1, output_type="latent")


def test_a_negative_prompt_still_needs_the_text_encoders():
    components = tiny_sd3().components
    encoded = arguments([pipeline(components).encode_prompt("a cat")])
    alone = pipeline({name: part for name, part in components.items() if name not in TEXT})
    with pytest.raises(ValueError, match="`text_encoder` must be loaded for SD3Transformer2DModel, got None"):
        alone(photos(1), ARTIFACT, **encoded, guidance_scale=2.0, num_inference_steps=1)


def test_what_does_not_fit_is_named():
    pipe = pipeline(tiny_flux().components)
    encoded = arguments([pipe.encode_prompt("a cat")])
    with pytest.raises(ValueError, match="`prompt` must be left out with `prompt_embeds`, got both"):
        pipe(photos(1), ARTIFACT, prompt="a cat", **encoded)
    with pytest.raises(ValueError, match="`prompt_embeds` must have a row for each of 2 images, got 1"):
        pipe(photos(2), [[ARTIFACT], [ARTIFACT]], **encoded)
    with pytest.raises(ValueError, match="`pooled_prompt_embeds` must be given .* for FluxTransformer2DModel, got N"):
        pipe(photos(1), ARTIFACT, prompt_embeds=encoded["prompt_embeds"])
