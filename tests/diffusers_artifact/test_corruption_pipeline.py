"""The corruption pipeline on tiny random models of the families, and on the embedded model."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image
from scipy import ndimage

import diffusers_artifact.corruption_levels
import diffusers_artifact.pipeline_corruption
from diffusers_artifact import EMBEDDED_MODEL, ArtifactCorruptionPipeline, ReNoise
from diffusers_artifact.choices import CORRUPTION_NAMES
from diffusers_artifact.corruption_levels import sigma_of_step
from diffusers_artifact.corruptions import NoiseLevel

from ..helpers.tiny_pipelines import (
    tiny_chroma,
    tiny_flux,
    tiny_flux2,
    tiny_qwen_image,
    tiny_sd,
    tiny_sd3,
    tiny_sdxl,
    tiny_unet,
)


SIDE = 64
BATCH_TOLERANCE: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-4}
UNETS = {"sd": tiny_sd, "sd-v": lambda: tiny_sd("v_prediction"), "sdxl": tiny_sdxl}
FLOWS = {
    "flux": tiny_flux,
    "sd3": tiny_sd3,
    "flux2": tiny_flux2,
    "chroma": tiny_chroma,
    "qwen-image": tiny_qwen_image,
}


def pipeline(stock) -> ArtifactCorruptionPipeline:
    pipe = ArtifactCorruptionPipeline(**{name: part for name, part in stock.components.items() if part is not None})
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def pipes() -> Callable[[str], ArtifactCorruptionPipeline]:
    """Return a function that builds each pipeline once."""
    built: dict[str, ArtifactCorruptionPipeline] = {}

    def get(name: str) -> ArtifactCorruptionPipeline:
        if name not in built:
            built[name] = pipeline({**UNETS, **FLOWS}[name]())
        return built[name]

    return get


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    return [Image.fromarray(photo) for photo in pixels]


def box(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


MASK = box(16, 16, 24, 32)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run(pipe, image, mask=MASK, **arguments):
    settings = {"num_inference_steps": 4, "step": 30, "generator": seeded(), "output_type": "latent"}
    if pipe.unet is not None:
        settings["renoise"] = ReNoise(1)
    return pipe(image, mask, **(settings | arguments))


def latent_mask(output, variant: int) -> torch.Tensor:
    return torch.from_numpy(output.masks[variant][::8, ::8])


def test_examples_of_the_docstrings_run():
    for module in (diffusers_artifact.pipeline_corruption, diffusers_artifact.corruption_levels):
        result = doctest.testmod(module)
        assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize("name", [*UNETS, *FLOWS])
def test_every_family_corrupts_the_mask(pipes, photos, name):
    renoise = ReNoise.fixed_point(1) if name in UNETS else None
    output = run(pipes(name), photos[0], prompt="a cat", method=list(CORRUPTION_NAMES), renoise=renoise)
    assert output.methods == list(CORRUPTION_NAMES)
    assert output.image_indices == output.photo_indices == [0] * 5
    assert output.images.shape == (5, *output.reconstructions.shape[1:])
    change = (output.images - output.reconstructions).abs().mean(1)
    # Convolutions and normalisation of random weights carry a change everywhere.
    least_ratio = 1 if name in UNETS else 2
    for variant in range(5):
        inside = latent_mask(output, variant)
        assert change[variant][inside].mean() > least_ratio * change[variant][~inside].mean()
    assert len(set(output.images.double().sum((1, 2, 3)).tolist())) == 5, "no two methods do the same"


@pytest.mark.parametrize("name", ["sdxl", "flux"])
def test_one_inversion_serves_all_variants(pipes, photos, name):
    """Each variant of a call equals the same variant in a call of its own, as a batch equals its rows."""
    masks = [[box(8, 8, 16, 16)], [box(0, 32, 9, 20), MASK]]
    methods = ["proposed", "rotate"]
    # Regularisation makes the inversion of a random U-Net unstable, so that rounding of batches would grow.
    renoise = ReNoise(1, regularization_steps=0) if name == "sdxl" else None
    generators = [seeded(number) for number in range(6)]
    together = run(pipes(name), photos, masks, method=methods, generator=generators, renoise=renoise)
    assert together.photo_indices == [0, 0, 1, 1, 1, 1]
    assert together.image_indices == [0, 0, 1, 1, 1, 1] and len(together.reconstructions) == 2
    assert together.methods == methods * 3
    variants = [(photo, mask, method) for photo, own in enumerate(masks) for mask in own for method in methods]
    for number, (photo, mask, method) in enumerate(variants):
        alone = run(pipes(name), photos[photo], mask, method=method, generator=seeded(number), renoise=renoise)
        torch.testing.assert_close(together.images[number], alone.images[0], **BATCH_TOLERANCE)
        torch.testing.assert_close(together.reconstructions[photo], alone.reconstructions[0], **BATCH_TOLERANCE)
        np.testing.assert_array_equal(together.masks[number], alone.masks[0])


@pytest.mark.parametrize("solver", ["euler", "midpoint", "fireflow", "uni_inv"])
def test_several_levels_share_an_inversion(pipes, photos, solver):
    """The highest level decides how far it goes; each lower one is left on the way, and sampled from there."""
    pipe = pipes("flux")
    output = run(pipe, photos[0], step=None, sigma=[0.3, 0.8], solver=solver, generator=[seeded(), seeded(1)])
    assert output.levels == pytest.approx([0.3, 0.8])
    assert output.image_indices == [0, 1] and len(output.reconstructions) == 2
    low, high = (
        run(pipe, photos[0], step=None, sigma=sigma, solver=solver, generator=seeded(number))
        for number, sigma in enumerate((0.3, 0.8))
    )
    torch.testing.assert_close(output.images[0], low.images[0], **BATCH_TOLERANCE)
    torch.testing.assert_close(output.reconstructions[0], low.reconstructions[0], **BATCH_TOLERANCE)
    # The way to the higher level has one more point here, the lower level.
    torch.testing.assert_close(output.images[1], high.images[0], rtol=0.1, atol=0.1)
    assert output.num_function_evaluations > high.num_function_evaluations > low.num_function_evaluations


def test_levels_of_a_unet_are_those_of_its_grid(pipes, photos):
    pipe = pipes("sd")
    output = run(pipe, photos[0], num_inference_steps=50, step=[45, 40], method="blur", renoise=ReNoise.fixed_point(0))
    assert output.levels == pytest.approx([sigma_of_step(45), sigma_of_step(40)], abs=1e-5)
    # Ten steps to invert, five and ten steps to sample a clean and a corrupted image.
    assert output.num_function_evaluations == 10 + 2 * 5 + 2 * 10
    coarse = run(pipe, photos[0], num_inference_steps=4, step=49, method="blur", renoise=ReNoise.fixed_point(0))
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    alpha = float(scheduler.alphas_cumprod[1])
    assert coarse.levels == pytest.approx([NoiseLevel(alpha**0.5, (1 - alpha) ** 0.5).sigma], abs=1e-6)


def test_a_thin_line_is_corrupted_wherever_it_lies(pipes, photos):
    masks = [box(row, 20, 3, 30) for row in (13, 14, 15, 16)]
    output = run(pipes("flux"), photos[0], masks, method="gaussian")
    rows = [sorted(set(np.flatnonzero(mask.any(1)) // 8)) for mask in output.masks]
    assert rows == [[1], [1, 2], [1, 2], [2]]
    for given, effective in zip(masks, output.masks, strict=True):
        assert effective.shape == (SIDE, SIDE) and not (given & ~effective).any()
        assert np.flatnonzero(effective.any(0)).tolist() == list(range(16, 56))


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_latents_outside_the_mask_can_be_held(pipes, photos, name):
    output = run(pipes(name), photos[0], [MASK, box(0, 0, 10, 10)], method=["gaussian", "blur"], confine="latent")
    for variant in range(4):
        inside = latent_mask(output, variant)
        same = (output.images[variant] == output.reconstructions[0]).all(0)
        assert same[~inside].all() and not same[inside].any()


def test_pixels_away_from_the_mask_can_be_held(pipes, photos):
    mask = box(0, 0, 16, 16)
    output = run(pipes("flux"), photos[0], mask, method="gaussian", confine="pixel", output_type="np")
    same = (output.images[0] == output.reconstructions[0]).all(-1)
    assert same[32:].all() and same[:, 32:].all()
    loose = run(pipes("flux"), photos[0], mask, method="gaussian", output_type="np")
    assert not (loose.images[0] == loose.reconstructions[0]).all(-1)[32:].all()


def test_the_embedded_model_confines_the_change_to_the_mask():
    """Menn et al., §3: the artifacts lie inside the selected region. At .522, the least faithful of their levels."""
    pipe = ArtifactCorruptionPipeline.from_pretrained(EMBEDDED_MODEL)
    pipe.set_progress_bar_config(disable=True)
    rows, columns = np.mgrid[:128, :128]
    waves = 0.5 + 0.3 * np.sin(rows / 5) * np.cos(columns / 7) + 0.1 * np.sin(columns / 2)
    photo = np.stack([waves, waves.T, 1 - waves], axis=-1)[None]
    mask = np.zeros((128, 128), dtype=bool)
    mask[48:80, 32:64] = True
    settings = {"step": 30, "num_inference_steps": 8, "output_type": "np"}
    output = pipe(photo, mask, generator=seeded(), **settings)
    change = ((output.images[0] - output.reconstructions[0]) ** 2).mean(-1)
    assert 10 * np.log10(1 / change[~mask].mean()) > 40
    assert np.sqrt(change[mask].mean()) > 5 * np.sqrt(change[~mask].mean())
    held = pipe(photo, mask, method="gaussian", confine="visible", generator=seeded(), **settings)
    differs = (held.images[0] != held.reconstructions[0]).any(-1)
    far = ndimage.distance_transform_edt(~mask) > 16
    assert differs[mask].mean() > 0.9 and not differs[far].any()
    assert pipe.preset.num_inference_steps == 12 and pipe.preset.level("proposed") == 0.7


def test_the_default_level_is_the_models(pipes, photos):
    output = run(pipes("flux"), photos[0], method=["proposed", "blur"], step=None)
    assert output.levels == pytest.approx([sigma_of_step(40), sigma_of_step(30)])


def test_the_same_seed_gives_the_same_images(pipes, photos):
    first, again, other = (run(pipes("sd"), photos[0], generator=seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.reconstructions, other.reconstructions)
    assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3"])
def test_guidance_acts_on_resampling_alone(pipes, photos, name):
    pipe = pipes(name)
    plain = run(pipe, photos[0], prompt="a cat")
    guided = run(pipe, photos[0], prompt="a cat", guidance_scale=3.0)
    other = run(pipe, photos[0], prompt="a cat", guidance_scale=3.0, negative_prompt="a dog")
    assert not torch.equal(plain.images, guided.images)
    assert not torch.equal(guided.images, other.images)
    inverting = [output.num_function_evaluations for output in (plain, guided)]
    resampling = inverting[1] - inverting[0]
    assert 0 < resampling < inverting[0], "only resampling evaluates the negative prompt"


def test_sdxl_takes_sizes_and_an_empty_negative_prompt_as_its_stock_pipeline(pipes, photos):
    pipe = pipes("sdxl")
    negative = pipe.family.encode_negative("", torch.device("cpu"), None)
    assert not negative.prompt_embeds.any() and not negative.pooled.any()
    assert pipe.family.encode_negative("a dog", torch.device("cpu"), None).prompt_embeds.any()
    stock = tiny_sdxl()
    embeds, _, pooled, _ = stock.encode_prompt("a cat", device="cpu", do_classifier_free_guidance=False)
    conditioning = pipe.family.encode_prompt("a cat", torch.device("cpu"), None)
    assert torch.equal(conditioning.prompt_embeds, embeds) and torch.equal(conditioning.pooled, pooled)
    latents = torch.randn(2, 4, 8, 12, generator=seeded())
    sizes = torch.tensor([[64.0, 96.0, 0.0, 0.0, 64.0, 96.0]]).expand(2, -1)
    with torch.no_grad():
        expected = stock.unet(
            latents,
            181,
            encoder_hidden_states=embeds.expand(2, -1, -1),
            added_cond_kwargs={"text_embeds": pooled.expand(2, -1), "time_ids": sizes},
        ).sample
        assert torch.equal(pipe.family.output(latents, 181, conditioning.expand(2)), expected)


def test_encoded_prompts_stand_for_prompts(pipes, photos):
    pipe = pipes("sdxl")
    embeds, pooled, _ = pipe.encode_prompt("a cat")
    encoded = run(pipe, photos[0], prompt_embeds=embeds, pooled_prompt_embeds=pooled)
    assert torch.equal(encoded.images, run(pipe, photos[0], prompt="a cat").images)


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_callback_sees_and_replaces_the_latents_of_every_step(pipes, photos, name):
    pipe, seen = pipes(name), []

    def last_row_to_zero(pipeline, index, timestep, given):
        seen.append((index, float(timestep), given["latents"].shape))
        if index < pipeline.num_timesteps / 2:
            return {}
        return {"latents": given["latents"] * torch.tensor([1.0, 0.0])[:, None, None, None]}

    output = run(pipe, photos[0], callback_on_step_end=last_row_to_zero)
    assert [index for index, *_ in seen] == list(range(pipe.num_timesteps))
    half = pipe.num_timesteps // 2
    times = [time for _, time, _ in seen]
    assert times[:half] == sorted(times[:half]) and times[half:] == sorted(times[half:], reverse=True)
    assert {shape[0] for *_, shape in seen[:half]} == {1} and {shape[0] for *_, shape in seen[half:]} == {2}
    assert not output.images.any()
    torch.testing.assert_close(output.reconstructions, run(pipe, photos[0]).reconstructions)


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_an_interrupted_call_ends_early(pipes, photos, name):
    def interrupt(pipeline, index, timestep, given):
        pipeline._interrupt = True
        return given

    pipe = pipes(name)
    renoise = ReNoise.fixed_point(0) if name == "sd" else None
    output = run(pipe, photos[0], callback_on_step_end=interrupt, renoise=renoise, step=[40, 20])
    assert output.num_function_evaluations == 1 and len(output.images) == 2


def test_half_precision_autoencoders_that_overflow_run_in_float32(pipes, photos):
    pipe = pipeline(tiny_sdxl())
    expected = run(pipe, photos[0], method="blur", renoise=None).reconstructions
    pipe.vae.to(torch.float16)
    half = run(pipe, photos[0], method="blur", renoise=None).reconstructions
    assert pipe.vae.dtype == torch.float16
    torch.testing.assert_close(half, expected, rtol=1e-2, atol=1e-2)


def test_tuple_output(pipes, photos):
    images, reconstructions = run(pipes("flux"), photos[0], return_dict=False, output_type="pil")
    assert [image.size for image in (*images, *reconstructions)] == [(SIDE, SIDE)] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "smear"}, "`method` must be one of proposed, blur, downscale, rotate, gaussian, got 'smear'"),
        ({"method": []}, "`method` must hold at least one value, got none"),
        ({"sigma": 0.5}, "`step` must be None where `sigma` is given, got 30 with 0.5"),
        ({"step": 50}, "`step` must be an integer from 0 to 49, got 50"),
        ({"step": []}, "`step` must hold at least one value, got none"),
        ({"step": None, "sigma": 0.0}, "`sigma` must be above 0 and at most 1, got 0.0"),
        ({"step": None, "sigma": [0.3, 1.5]}, "`sigma` must be above 0 and at most 1, got 1.5"),
        ({"mask": MASK.astype(np.uint8)}, "`mask` must be Boolean, got uint8; compare it"),
        ({"mask": MASK[:-1]}, r"`mask` must have the photo's height and width, \(64, 64\), got shape \(63, 64\)"),
        ({"mask": np.zeros_like(MASK)}, "`mask` must mark at least one pixel, got none"),
        ({"mask": []}, "`mask` must hold a list of masks for each of 1 images, got 0 lists"),
        ({"mask": [[]]}, "`mask` must hold at least one mask, got none"),
        ({"mask": [[MASK], [MASK]]}, "`mask` must hold a list of masks for each of 1 images, got 2 lists"),
        ({"mask": "mask.png"}, "`mask` must hold a list of masks for each of 1 images, got str"),
        ({"mask": [["mask.png"]]}, "`mask` must hold arrays or tensors, got str"),
        ({"num_inference_steps": 0}, "`num_inference_steps` must be an integer of at least 1, got 0"),
        ({"solver": "heun"}, "`solver` must be one of euler, midpoint, rf_solver, fireflow, uni_inv, got 'heun'"),
        ({"renoise": ReNoise()}, "`renoise` must be None for FluxTransformer2DModel"),
        ({"confine": "mask"}, "`confine` must be one of none, latent, pixel, visible, got 'mask'"),
        ({"confine": "pixel"}, "`confine` must be 'none' or 'latent' with `output_type='latent'`, got 'pixel'"),
        (
            {"generator": [seeded(), seeded()]},
            "`generator` must be one generator or one for each of 1 variants, got 2",
        ),
        ({"output_type": "jpg"}, "`output_type` must be one of pil, np, pt, latent, got 'jpg'"),
        ({"prompt": ["a", "b"]}, "`prompt` must be a string or one for each image, got 2 for 1 images"),
        ({"negative_prompt": "ugly"}, "`negative_prompt` must be empty for FluxTransformer2DModel"),
        (
            {"callback_on_step_end_tensor_inputs": ["noise"]},
            r"`callback_on_step_end_tensor_inputs` must be among \['latents'\], got \['noise'\]",
        ),
    ],
)
def test_wrong_arguments_are_refused(pipes, photos, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(pipes("flux"), photos[0], **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"renoise": "plain"}, "`renoise` must be a ReNoise, got str; `pipe.renoise_class` makes one"),
        ({"max_sequence_length": 16}, "`max_sequence_length` must be None for UNet2DConditionModel"),
    ],
)
def test_wrong_arguments_of_unets_are_refused(pipes, photos, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(pipes("sd"), photos[0], **arguments)


def test_models_that_are_not_supported_are_refused(photos):
    parts = {name: part for name, part in tiny_sd().components.items() if part is not None}
    with pytest.raises(ValueError, match="`transformer` or `unet` must be given, got neither"):
        ArtifactCorruptionPipeline(scheduler=parts["scheduler"], vae=parts["vae"])
    with pytest.raises(ValueError, match="`unet` must be a UNet2DConditionModel, got AutoencoderKL"):
        run(ArtifactCorruptionPipeline(**{**parts, "unet": parts["vae"]}), photos[0])
    with pytest.raises(ValueError, match="`unet` must take only noisy latents, which have 4 channels, got 9"):
        run(ArtifactCorruptionPipeline(**{**parts, "unet": tiny_unet(in_channels=9)}), photos[0])
    with pytest.raises(ValueError, match="must not be distilled .* its U-Net takes the guidance scale"):
        run(ArtifactCorruptionPipeline(**{**parts, "unet": tiny_unet(time_cond_proj_dim=8)}), photos[0])
    with pytest.raises(
        ValueError, match="`scheduler` must have the prediction type epsilon or v_prediction, got 'sample'"
    ):
        run(ArtifactCorruptionPipeline(**{**parts, "scheduler": DDIMScheduler(prediction_type="sample")}), photos[0])
    with pytest.raises(ValueError, match="`text_encoder` must be loaded for UNet2DConditionModel, got None"):
        run(ArtifactCorruptionPipeline(**{**parts, "text_encoder": None}), photos[0])
