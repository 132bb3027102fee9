"""FLUX.2: but for what is injected, attention, autoencoder, schedule and guidance are the stock pipelines'."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import Flux2KleinPipeline, Flux2Pipeline
from diffusers.image_processor import VaeImageProcessor

from diffusers_artifact import SOLVERS, ArtifactInjectionPipeline, PatchMapping
from diffusers_artifact.denoising_loop import DenoisingLoop
from diffusers_artifact.family import Conditioning
from diffusers_artifact.family_flux2 import Flux2Family
from diffusers_artifact.injection import InjectionState

from ..helpers.tiny_pipelines import tiny_flux2, tiny_flux2_klein


GRID = (4, 6)
SIZE = {"height": 16 * GRID[0], "width": 16 * GRID[1]}
STEPS = 3
BLOCKS = range(4)
EMPTY = PatchMapping.empty(GRID)
FLAW = PatchMapping(targets=(8, 9), references=(14, 15), grid=GRID)
TEXTS = ["a cat", "a black dog"]
TEXT_LENGTH = 64


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module", params=[tiny_flux2, tiny_flux2_klein], ids=["dev", "klein"])
def stock(request) -> Flux2Pipeline | Flux2KleinPipeline:
    pipeline = request.param()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def family(stock) -> Flux2Family:
    return Flux2Family(stock.transformer, stock.components)


def encode(family: Flux2Family, texts: list[str]) -> Conditioning:
    return Conditioning.stack([family.encode_prompt(text, torch.device("cpu"), TEXT_LENGTH) for text in texts])


def noise() -> torch.Tensor:
    return torch.randn(2, GRID[0] * GRID[1], 64, generator=torch.Generator().manual_seed(0))


def velocity(family: Flux2Family) -> torch.Tensor:
    return family.velocity(noise(), torch.tensor(500.0), encode(family, TEXTS), torch.tensor([1.0, 4.0]), GRID)


def injected_velocity(family: Flux2Family, state: InjectionState) -> torch.Tensor:
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

    def swap_values(_, __, output):
        start, width = output.shape[1] - len(source), 32  # text comes first in single-stream blocks
        values = slice(2 * width, 3 * width) if output.shape[-1] > width else slice(None)
        output[1, start:, values] = output[0, start:, values][source]
        return output

    if what == "positions":
        handles = [transformer.register_forward_pre_hook(swap_ids, with_kwargs=True)]
    else:
        double, single = transformer.transformer_blocks, transformer.single_transformer_blocks
        projections = [*(block.attn.to_v for block in double), *(block.attn.to_qkv_mlp_proj for block in single)]
        handles = [projection.register_forward_hook(swap_values) for projection in projections]
    expected = velocity(family)[1]
    for handle in handles:
        handle.remove()
    assert not torch.allclose(expected, plain[1], atol=1e-3)

    blocks = (BLOCKS, ()) if what == "positions" else ((), BLOCKS)
    injected = injected_velocity(family, InjectionState([EMPTY, FLAW], [0, 0], STEPS, *blocks))
    assert torch.equal(injected[0], plain[0])
    torch.testing.assert_close(injected[1], expected)


def test_latents_are_the_stock_ones(stock, family):
    images = torch.rand(2, 3, *SIZE.values(), generator=torch.Generator().manual_seed(0))
    expected = stock._encode_vae_image(images, None)
    latents = family.encode_images(images, None)
    assert torch.equal(latents, stock._unpatchify_latents(expected))
    assert torch.equal(family.pack(latents), stock._pack_latents(expected))
    assert torch.equal(family.unpack(family.pack(latents), GRID), latents)
    sampled = family.encode_images(images, torch.Generator().manual_seed(1))
    assert not torch.allclose(sampled, latents, atol=1e-3)


def test_denoising_equals_the_stock_pipeline(stock, family):
    family.check()
    images = stock(
        prompt=TEXTS,
        **SIZE,
        guidance_scale=4.0,
        num_inference_steps=STEPS,
        latents=noise().transpose(1, 2).unflatten(2, GRID),
        max_sequence_length=TEXT_LENGTH,
        output_type="pt",
    ).images

    scheduler = SOLVERS["euler"].from_config(stock.scheduler.config)
    scheduler.set_timesteps(**family.timestep_arguments(STEPS, GRID[0] * GRID[1], stock.scheduler))
    assert scheduler.sigma_grid == stock.scheduler.sigmas.tolist()
    state = InjectionState([EMPTY, EMPTY], [0, 0], STEPS, BLOCKS, BLOCKS)
    loop = DenoisingLoop(family, GRID, encode(family, [""]), observer=state)
    with family.injecting(state):
        tokens = loop.denoise(
            scheduler, noise(), encode(family, TEXTS), torch.full((2,), 4.0), lambda _, sample: sample
        )
    decoded = VaeImageProcessor().postprocess(family.decode_latents(family.unpack(tokens, GRID)), output_type="pt")
    assert np.ptp(decoded.numpy()) > 0.1
    torch.testing.assert_close(decoded, images, rtol=1e-5, atol=1e-5)


def test_guidance_is_distilled_or_true(family):
    is_dev = family.transformer.config.guidance_embeds
    assert family.guidance_kind == ("distilled" if is_dev else "true")
    assert family.default_guidance_scale == (4.0 if is_dev else 1.0)


@pytest.mark.parametrize("is_distilled", [False, True])
def test_klein_is_refused_where_its_configuration_says_it_is_distilled(is_distilled, tmp_path):
    tiny_flux2_klein(is_distilled).save_pretrained(tmp_path / "FLUX.2-klein-4B")
    pipe = ArtifactInjectionPipeline.from_pretrained(tmp_path / "FLUX.2-klein-4B")
    pipe.set_progress_bar_config(disable=True)
    photo = np.zeros((1, *SIZE.values(), 3), dtype=np.float32)
    arguments = {"num_inference_steps": 1, "max_sequence_length": 8, "output_type": "latent"}
    if is_distilled:
        with pytest.raises(ValueError, match="`transformer` must not be distilled .* says `is_distilled`"):
            pipe(photo, FLAW, **arguments)
    assert pipe(photo, FLAW, **arguments, allow_distilled=is_distilled).images.isfinite().all()
