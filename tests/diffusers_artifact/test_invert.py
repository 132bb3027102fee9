"""`ArtifactInjectionPipeline.invert`: images to noise, and what that noise denoises to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from diffusers_artifact import EMBEDDED_MODEL, ArtifactInjectionPipeline, PatchMapping
from diffusers_artifact.denoising_loop import DenoisingLoop

from ..helpers.tiny_pipelines import tiny_flux, tiny_sd3


GRID = (2, 3)
SIZE = (GRID[1] * 16, GRID[0] * 16)


def images(count: int, size: tuple[int, int] = SIZE) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)) for _ in range(count)]


@pytest.fixture(scope="module", params=[tiny_flux, tiny_sd3])
def pipe(request) -> ArtifactInjectionPipeline:
    stock = request.param()
    pipeline = ArtifactInjectionPipeline(**{k: v for k, v in stock.components.items() if v is not None})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_the_noise_is_that_of_a_call_bit_for_bit(pipe):
    photos, options = images(2), {"num_inference_steps": 3, "max_sequence_length": 8, "prompt": ["a cat", "a dog"]}
    noise = pipe.invert(photos, **options)
    called = pipe(photos, [[PatchMapping.empty(GRID)]] * 2, output_type="latent", **options)
    assert noise.dtype == torch.float32 and noise.shape == (2, 16, SIZE[1] // 8, SIZE[0] // 8)
    assert torch.equal(noise, pipe.family.unpack(called.inverted_latents, GRID))
    assert pipe.invert(photos[0], num_inference_steps=2).shape[0] == 1 and pipe.num_timesteps == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"solver": "heun"}, "`solver` must be one of"),
        ({"num_inference_steps": 0}, "`num_inference_steps` must be an integer of at least 1, got 0"),
        ({"prompt": ["a", "b"]}, "`prompt` must be a string or one for each image, got 2 for 1 images"),
    ],
)
def test_mistakes_are_told(pipe, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipe.invert(images(1), **arguments)


def test_noise_that_is_stored_as_float16_denoises_to_its_own_image():
    pipe = ArtifactInjectionPipeline.from_pretrained(EMBEDDED_MODEL)
    pipe.set_progress_bar_config(disable=True)
    first = Image.radial_gradient("L").convert("RGB")
    second = first.copy()
    second.paste((200, 40, 40), (96, 96, 160, 160))
    noise = pipe.invert([first, second], num_inference_steps=8).half().float()
    family, grid = pipe.family, (32, 32)
    tokens = family.pack(noise)
    _, denoising = pipe._make_solvers("fireflow", 8, tokens.shape[1])
    conditions = family.encode_prompt("", torch.device("cpu"), None).expand(2)
    with torch.no_grad():
        clean = DenoisingLoop(family, grid).denoise(
            denoising, tokens, conditions, torch.ones(2), lambda timestep, point: point
        )
        found = pipe.image_processor.postprocess(family.decode_latents(family.unpack(clean, grid)), output_type="np")
    # The embedded model's inversion: 32 to 36 dB on the demo's pairs; the square, with the other's noise, 6 to 10.
    assert psnr(found[0], first) > 28 and psnr(found[1], second) > 28
    square = np.s_[96:160, 96:160]
    assert psnr(found[1][square], np.asarray(second)[square]) > psnr(found[0][square], np.asarray(second)[square]) + 10


def psnr(pixels: np.ndarray, image) -> float:
    return float(-10 * np.log10(np.mean((pixels - np.asarray(image) / 255) ** 2)))
