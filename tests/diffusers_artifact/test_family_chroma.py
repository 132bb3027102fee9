"""Chroma: but for what is injected, attention, masks, autoencoder, schedule and guidance are the stock pipeline's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import ChromaImg2ImgPipeline, ChromaPipeline
from diffusers.image_processor import VaeImageProcessor

from diffusers_artifact import SOLVERS, PatchMapping
from diffusers_artifact.denoising_loop import DenoisingLoop
from diffusers_artifact.family import Conditioning
from diffusers_artifact.family_chroma import ChromaFamily
from diffusers_artifact.injection import InjectionState

from ..helpers.tiny_pipelines import tiny_chroma


GRID = (4, 6)
SIZE = {"height": 16 * GRID[0], "width": 16 * GRID[1]}
STEPS = 3
BLOCKS = range(4)
EMPTY = PatchMapping.empty(GRID)
FLAW = PatchMapping(targets=(8, 9), references=(14, 15), grid=GRID)
TEXTS = ["a cat", "a black dog"]
TEXT_LENGTH = 16


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def stock() -> ChromaPipeline:
    pipeline = tiny_chroma()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def family(stock) -> ChromaFamily:
    return ChromaFamily(stock.transformer, stock.components)


def encode(family: ChromaFamily, texts: list[str]) -> Conditioning:
    return Conditioning.stack([family.encode_prompt(text, torch.device("cpu"), TEXT_LENGTH) for text in texts])


def noise() -> torch.Tensor:
    return torch.randn(2, GRID[0] * GRID[1], 64, generator=torch.Generator().manual_seed(0))


def velocity(family: ChromaFamily) -> torch.Tensor:
    return family.velocity(noise(), torch.tensor(500.0), encode(family, TEXTS), torch.ones(2), GRID)


def injected_velocity(family: ChromaFamily, state: InjectionState) -> torch.Tensor:
    with family.injecting(state):
        state.begin_denoising(0, "cond")
        return velocity(family)


@pytest.mark.parametrize("fused", [False, True])
def test_without_injection_attention_is_the_stock_one_bit_for_bit(family, fused):
    if fused:
        family.transformer.fuse_qkv_projections()
    state = InjectionState([EMPTY, EMPTY], [0, 0], STEPS, BLOCKS, BLOCKS)
    assert torch.equal(injected_velocity(family, state), velocity(family))
    family.transformer.unfuse_qkv_projections()


@pytest.mark.parametrize("what", ["positions", "values"])
def test_injection_equals_hooks_on_the_stock_model(family, what):
    """The artifact row alone, with every token at its reference's position, or with its value from the other row."""
    source = torch.arange(GRID[0] * GRID[1])
    source[list(FLAW.targets)] = torch.tensor(FLAW.references)
    transformer, plain = family.transformer, velocity(family)

    def swap_ids(_, arguments, named):
        return arguments, {**named, "img_ids": named["img_ids"][source]}

    def swap_values(_, __, values):
        start = values.shape[1] - len(source)  # text comes first in single-stream blocks
        values[1, start:] = values[0, start:][source]
        return values

    if what == "positions":
        handles = [transformer.register_forward_pre_hook(swap_ids, with_kwargs=True)]
    else:
        blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
        handles = [block.attn.to_v.register_forward_hook(swap_values) for block in blocks]
    expected = velocity(family)[1]
    for handle in handles:
        handle.remove()
    assert not torch.allclose(expected, plain[1], atol=1e-3)

    active = (BLOCKS, ()) if what == "positions" else ((), BLOCKS)
    injected = injected_velocity(family, InjectionState([EMPTY, FLAW], [0, 0], STEPS, *active))
    assert torch.equal(injected[0], plain[0])
    torch.testing.assert_close(injected[1], expected)


def test_the_mask_counts_one_token_of_padding(family):
    """The start of a word, five characters and the token that ends them, then nine of padding."""
    mask = encode(family, ["a cat"]).mask
    assert mask is not None and mask.tolist() == [[1] * 8 + [0] * 8]


def test_latents_are_the_stock_ones(stock, family):
    images = torch.rand(2, 3, *SIZE.values(), generator=torch.Generator().manual_seed(0))
    image_to_image = ChromaImg2ImgPipeline(**stock.components)
    expected = image_to_image._encode_vae_image(images, torch.Generator().manual_seed(1))
    assert torch.equal(family.encode_images(images, torch.Generator().manual_seed(1)), expected)


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_denoising_equals_the_stock_pipeline(stock, family, scale):
    family.check()
    images = stock(
        prompt=TEXTS,
        negative_prompt=["a blur"] * 2,
        **SIZE,
        guidance_scale=scale,
        num_inference_steps=STEPS,
        latents=noise(),
        max_sequence_length=TEXT_LENGTH,
        output_type="pt",
    ).images

    scheduler = SOLVERS["euler"].from_config(stock.scheduler.config)
    scheduler.set_timesteps(**family.timestep_arguments(STEPS, GRID[0] * GRID[1], stock.scheduler))
    assert scheduler.sigma_grid == stock.scheduler.sigmas.tolist()
    state = InjectionState([EMPTY, EMPTY], [0, 0], STEPS, BLOCKS, BLOCKS)
    loop = DenoisingLoop(family, GRID, encode(family, ["a blur"]), observer=state)
    with family.injecting(state):
        tokens = loop.denoise(
            scheduler, noise(), encode(family, TEXTS), torch.full((2,), scale), lambda _, sample: sample
        )
    decoded = VaeImageProcessor().postprocess(family.decode_latents(family.unpack(tokens, GRID)), output_type="pt")
    assert np.ptp(decoded.numpy()) > 0.1
    torch.testing.assert_close(decoded, images, rtol=1e-5, atol=1e-5)


def test_guidance_is_true_and_off_by_default(family):
    assert family.guidance_kind == "true" and family.default_guidance_scale == 1.0


@pytest.mark.parametrize("name, few_steps", [("lodestones/Chroma1-HD", False), ("lodestones/Chroma1-Flash", True)])
def test_few_step_checkpoints_are_known_by_their_name(family, name, few_steps):
    assert bool(family.distillation(name)) is few_steps
