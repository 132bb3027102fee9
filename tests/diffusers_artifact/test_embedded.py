"""The embedded model: its autoencoder, its folder layout, and faithful inversion."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate.hooks import (
    ModelHook,
    add_hook_to_module,
    remove_hook_from_module,
)
from diffusers import DiffusionPipeline, FluxPipeline
from PIL import Image, ImageOps
from skimage import data

from diffusers_artifact import EMBEDDED_MODEL, ArtifactInjectionPipeline, AutoencoderPCA, PatchMapping


GRID = (32, 32)


def load(pixels: np.ndarray) -> torch.Tensor:
    photo = ImageOps.fit(Image.fromarray(pixels), (256, 256), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 255


@pytest.fixture(scope="module")
def pipe() -> ArtifactInjectionPipeline:
    pipeline = ArtifactInjectionPipeline.from_pretrained(EMBEDDED_MODEL)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    return load(data.astronaut())


def psnr(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(-10 * torch.log10((first.clamp(0, 1) - second.clamp(0, 1)).pow(2).mean()))


@torch.no_grad()
def round_trip(pipe: ArtifactInjectionPipeline, photo: torch.Tensor) -> torch.Tensor:
    return (pipe.vae(2 * photo - 1).sample + 1) / 2


def test_autoencoder_has_the_interface_of_autoencoder_kl(pipe, photo):
    with torch.no_grad():
        posterior = pipe.vae.encode(2 * photo - 1).latent_dist
        latents = posterior.mode()
        assert latents.shape == (1, 16, 64, 64)
        assert torch.equal(posterior.sample(), latents)
        decoded = pipe.vae.decode(latents).sample
        assert decoded.shape == photo.shape
        assert torch.equal(pipe.vae.decode(latents, return_dict=False)[0], decoded)
        assert torch.equal(pipe.vae.encode(2 * photo - 1, return_dict=False)[0].mode(), latents)


def test_autoencoder_reconstructs_an_unseen_photo(pipe, photo):
    assert psnr(round_trip(pipe, photo), photo) > 29  # a finely textured one; the mean over photos is in the card


def test_latents_of_a_patch_depend_on_that_patch_alone(pipe, photo):
    other = photo.clone()
    other[..., :4, :4] = 0
    with torch.no_grad():
        change = pipe.vae.encode(photo).latent_dist.mode() - pipe.vae.encode(other).latent_dist.mode()
    assert change[..., 0, 0].abs().max() > 0
    change[..., 0, 0] = 0
    assert not change.any()


@pytest.mark.parametrize("steps, number, least", [(10, 3, 28), (25, 1, 40)])
def test_inversion_and_denoising_return_the_round_trip(pipe, photo, steps, number, least):
    photos = torch.cat([photo, load(data.chelsea()), load(data.coffee())])[:number]
    nothing = [[PatchMapping.empty(GRID)]] * len(photos)
    output = pipe(photos, nothing, num_inference_steps=steps, solver="fireflow", output_type="pt")
    pairs = zip(output.reconstructions, round_trip(pipe, photos), strict=True)
    assert np.mean([psnr(reconstruction, expected) for reconstruction, expected in pairs]) >= least


def test_it_is_an_ordinary_checkpoint(photo):
    assert type(DiffusionPipeline.from_pretrained(EMBEDDED_MODEL)) is ArtifactInjectionPipeline
    absent = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    stock = FluxPipeline.from_pretrained(EMBEDDED_MODEL, **absent)
    stock.set_progress_bar_config(disable=True)
    assert isinstance(stock.vae, AutoencoderPCA)
    image = stock(
        prompt_embeds=torch.zeros(1, 1, 64),
        pooled_prompt_embeds=torch.zeros(1, 64),
        height=256,
        width=256,
        num_inference_steps=2,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    ).images
    assert image.shape == photo.shape and image.std() > 0.05


def test_a_prompt_is_refused_without_text_encoders(pipe, photo):
    with pytest.raises(ValueError, match="`prompt` must be empty for a checkpoint without text encoders, got 'a cat'"):
        pipe(photo, PatchMapping.empty(GRID), prompt="a cat", num_inference_steps=1)


def test_a_fresh_autoencoder_inverts_its_own_principal_components():
    generator = torch.Generator().manual_seed(0)
    model = AutoencoderPCA(latent_channels=48, block_out_channels=(4, 4, 8), layers_per_block=1)
    basis = torch.linalg.qr(torch.randn(48, 48, generator=generator)).Q.view(48, 3, 4, 4)
    model.set_principal_components(torch.full((3, 4, 4), 0.25), basis, torch.rand(48, generator=generator) + 0.5)
    images = torch.rand(2, 3, 32, 32, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(model(images).sample, images, rtol=1e-3, atol=1e-3)


def test_a_held_background_changes_less_outside_and_as_much_inside(pipe, photo):
    """An eye of the astronaut's, copied onto her cheek, at the settings of the embedded preset."""
    targets = [GRID[1] * row + column for row in range(6, 10) for column in range(16, 20)]
    artifact = PatchMapping(tuple(targets), tuple(target - 2 * GRID[1] - 2 for target in targets), GRID)
    inside = torch.from_numpy(artifact.target_patches()).repeat_interleave(8, 0).repeat_interleave(8, 1)

    def change(hold: bool) -> tuple[float, float]:
        output = pipe(
            photo,
            artifact,
            num_inference_steps=4,
            value_steps=4,
            value_blocks=range(8),
            transfer_noise=True,
            hold_background=hold,
            output_type="pt",
        )
        difference = (output.images - output.reconstructions).abs().mean(1)[0]
        return float(difference[~inside].mean()), float(difference[inside].mean())

    (held, flawed), (free, unheld) = change(True), change(False)
    assert held < 0.8 * free
    assert flawed > 0.9 * unheld > 10 * free


def test_the_autoencoder_calls_the_hooks_that_offloading_sets(pipe, photo):
    calls = []

    class Recorder(ModelHook):
        def pre_forward(self, module, *args, **kwargs):
            calls.append(module)
            return args, kwargs

    add_hook_to_module(pipe.vae, Recorder())
    try:
        with torch.no_grad():
            pipe.vae.decode(pipe.vae.encode(photo).latent_dist.mode())
    finally:
        remove_hook_from_module(pipe.vae)
    assert calls == [pipe.vae, pipe.vae]


def test_a_stride_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="`patch_size` must be 2"):
        AutoencoderPCA(patch_size=16)
