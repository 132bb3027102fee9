"""Qwen-Image: but for what is injected, attention, autoencoder, schedule and guidance are the stock pipeline's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import QwenImageImg2ImgPipeline
from diffusers.image_processor import VaeImageProcessor

from diffusers_artifact import SOLVERS, ArtifactInjectionPipeline, PatchMapping
from diffusers_artifact.denoising_loop import DenoisingLoop
from diffusers_artifact.family import Conditioning
from diffusers_artifact.family_qwen import QwenImageFamily
from diffusers_artifact.injection import InjectionState

from ..helpers.tiny_pipelines import tiny_qwen_image


GRID = (4, 6)
SIZE = {"height": 16 * GRID[0], "width": 16 * GRID[1]}
STEPS = 3
BLOCKS = range(3)
EMPTY = PatchMapping.empty(GRID)
FLAW = PatchMapping(targets=(8, 9), references=(14, 15), grid=GRID)
TEXTS = {"without mask": ("a cat", "a dog"), "with mask": ("a cat", "a black dog")}


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def family() -> QwenImageFamily:
    stock = tiny_qwen_image()
    return QwenImageFamily(stock.transformer, stock.components)


def encode(family: QwenImageFamily, texts: tuple[str, ...]) -> Conditioning:
    return Conditioning.stack([family.encode_prompt(text, torch.device("cpu"), None) for text in texts])


def noise(rows: int) -> torch.Tensor:
    return torch.randn(rows, GRID[0] * GRID[1], 64, generator=torch.Generator().manual_seed(0))


def velocity(family: QwenImageFamily, tokens: torch.Tensor, texts: tuple[str, ...]) -> torch.Tensor:
    return family.velocity(tokens, torch.tensor(500.0), encode(family, texts), torch.ones(len(tokens)), GRID)


def injected_velocity(family: QwenImageFamily, state: InjectionState, texts: tuple[str, ...]) -> torch.Tensor:
    with family.injecting(state):
        state.begin_denoising(0, "cond")
        return velocity(family, noise(2), texts)


@pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS)
def test_without_injection_attention_is_the_stock_one_bit_for_bit(family, texts):
    assert (encode(family, texts).mask is not None) == (texts == TEXTS["with mask"])
    state = InjectionState([EMPTY, EMPTY], [0, 0], STEPS, BLOCKS, BLOCKS)
    assert torch.equal(injected_velocity(family, state, texts), velocity(family, noise(2), texts))


@pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("what", ["positions", "values"])
def test_injection_equals_hooks_on_the_stock_model(family, what, texts):
    """The artifact row alone, with every token at its reference's position, or with its value from the other row."""
    source = torch.arange(GRID[0] * GRID[1])
    source[list(FLAW.targets)] = torch.tensor(FLAW.references)
    transformer, plain = family.transformer, velocity(family, noise(2), texts)
    if what == "positions":
        handles = [transformer.pos_embed.register_forward_hook(lambda _, __, turns: (turns[0][source], turns[1]))]
    else:
        handles = [
            block.attn.to_v.register_forward_hook(lambda _, __, values: torch.stack([values[0], values[0, source]]))
            for block in transformer.transformer_blocks
        ]
    expected = velocity(family, noise(2), texts)[1]
    for handle in handles:
        handle.remove()
    assert not torch.allclose(expected, plain[1], atol=1e-3)

    active, inactive = BLOCKS, ()
    blocks = (active, inactive) if what == "positions" else (inactive, active)
    injected = injected_velocity(family, InjectionState([EMPTY, FLAW], [0, 0], STEPS, *blocks), texts)
    assert torch.equal(injected[0], plain[0])
    torch.testing.assert_close(injected[1], expected)


def test_texts_of_different_lengths_in_one_batch_equal_single_runs(family):
    pipe: Any = ArtifactInjectionPipeline(**family.components)
    pipe.set_progress_bar_config(disable=True)
    photos = torch.rand(2, 3, *SIZE.values(), generator=torch.Generator().manual_seed(0))
    arguments = {"num_inference_steps": STEPS, "guidance_scale": 4.0, "output_type": "latent"}
    together = pipe(photos, [[FLAW, EMPTY], [FLAW]], prompt=["", "a black dog"], **arguments)
    for index, prompt in ((0, ""), (2, "a black dog")):
        image = together.image_indices[index]
        alone = pipe(photos[image : image + 1], FLAW, prompt=prompt, **arguments)
        torch.testing.assert_close(together.images[index], alone.images[0], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(together.reconstructions[image], alone.reconstructions[0], rtol=1e-3, atol=1e-4)


def test_latents_are_the_stock_ones(family):
    images = torch.rand(2, 3, *SIZE.values(), generator=torch.Generator().manual_seed(0))
    stock = QwenImageImg2ImgPipeline(**family.components)
    expected = stock._encode_vae_image(images[:, :, None], torch.Generator().manual_seed(1))[:, :, 0]
    torch.testing.assert_close(family.encode_images(images, torch.Generator().manual_seed(1)), expected)
    mode = family.encode_images(images, None)
    assert mode.shape == expected.shape and not torch.allclose(mode, expected, atol=1e-3)


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("settings", [{}, {"zero_cond_t": True}], ids=str)
def test_denoising_equals_the_stock_pipeline(settings, scale):
    stock = tiny_qwen_image(**settings)
    stock.set_progress_bar_config(disable=True)
    family = QwenImageFamily(stock.transformer, stock.components)
    family.check()
    texts = TEXTS["with mask"]
    arguments = {
        "negative_prompt": ["", ""],
        "true_cfg_scale": scale,
        "num_inference_steps": STEPS,
        "latents": noise(2),
    }
    latents, images = (
        stock(list(texts), **SIZE, **arguments, output_type=output_type).images for output_type in ("latent", "pt")
    )

    scheduler = SOLVERS["euler"].from_config(stock.scheduler.config)
    scheduler.set_timesteps(**family.timestep_arguments(STEPS, GRID[0] * GRID[1], stock.scheduler))
    assert scheduler.sigma_grid == stock.scheduler.sigmas.tolist()
    state = InjectionState([EMPTY, EMPTY], [0, 0], STEPS, BLOCKS, BLOCKS)
    loop = DenoisingLoop(family, GRID, encode(family, ("",)), observer=state)
    with family.injecting(state):
        tokens = loop.denoise(
            scheduler, noise(2), encode(family, texts), torch.full((2,), scale), lambda _, sample: sample
        )
    torch.testing.assert_close(tokens, latents, rtol=1e-5, atol=1e-5)
    decoded = VaeImageProcessor().postprocess(family.decode_latents(family.unpack(tokens, GRID)), output_type="pt")
    assert np.ptp(decoded.numpy()) > 0.1
    torch.testing.assert_close(decoded, images, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"guidance_embeds": True}, "`transformer` must have `guidance_embeds=False`, got True"),
        ({"use_additional_t_cond": True}, "`transformer` must have `use_additional_t_cond=False`, got True"),
        ({"use_layer3d_rope": True}, "`transformer` must have `use_layer3d_rope=False`, got True"),
        ({"in_channels": 128}, "`transformer` must take only noisy latents, which have 64 channels, got 128"),
    ],
)
def test_other_checkpoints_are_refused_with_the_setting(settings, message):
    stock = tiny_qwen_image(**settings)
    with pytest.raises(ValueError, match=message):
        QwenImageFamily(stock.transformer, stock.components).check()
