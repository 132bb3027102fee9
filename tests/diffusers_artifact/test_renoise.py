"""Inversion along DDIM: as a fixed point, against the stock schedulers, and with ReNoise's regularisation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, PNDMScheduler

from diffusers_artifact import ReNoise
from diffusers_artifact.family import Conditioning
from diffusers_artifact.family_unet import UNetFamily
from diffusers_artifact.path_ddim import DDIMPath
from diffusers_artifact.renoise import pair_correlation, patch_divergence, regularize, renoise_step

from ..helpers.tiny_pipelines import TEXT_DIM, tiny_unet


SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
STOCK = {**SCHEDULE, "clip_sample": False, "set_alpha_to_one": False}
PREDICTION_TYPES = ("epsilon", "v_prediction")
PLAIN: dict[str, Any] = {"average": None, "early_average": None, "regularization_steps": 0, "noise_correction": False}


@pytest.fixture(scope="module")
def unet():
    """Make a random U-Net in float64 that predicts noise of about unit variance."""
    unet = tiny_unet().double()
    torch.nn.init.normal_(unet.conv_out.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    return unet


@pytest.fixture(scope="module")
def clean() -> torch.Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


TEXT = Conditioning(torch.randn(1, 5, TEXT_DIM, generator=torch.Generator().manual_seed(2), dtype=torch.float64))


def path_of(unet, renoise: ReNoise, steps: int = 50, prediction_type: str = "epsilon") -> DDIMPath:
    scheduler = PNDMScheduler(**SCHEDULE, prediction_type=prediction_type)
    return DDIMPath(UNetFamily(unet, {"scheduler": scheduler}), scheduler, steps, renoise, None, lambda: False)


def keep(timestep, latents):
    return latents


def round_trip(unet, clean, renoise, inverted_steps, **settings) -> float:
    """Invert, sample again, and return the relative error."""
    path = path_of(unet, renoise, **settings)
    level = path.levels[inverted_steps]
    noisy = path.invert(clean, TEXT, [level], keep)[level]
    sampled = path.resample(noisy, level, TEXT, 1.0, [0], keep)
    return float((sampled - clean).norm() / clean.norm())


@torch.no_grad()
def test_without_repetitions_it_is_the_stock_inversion(unet, clean):
    inverse = DDIMInverseScheduler(**STOCK)
    inverse.set_timesteps(10)
    expected = clean
    for timestep in inverse.timesteps[:4]:
        output = unet(expected, timestep, TEXT.prompt_embeds).sample
        expected = inverse.step(output, int(timestep), expected).prev_sample
    path = path_of(unet, ReNoise.fixed_point(0), 10)
    level = path.levels[4]
    torch.testing.assert_close(path.invert(clean, TEXT, [level], keep)[level], expected, rtol=1e-6, atol=1e-6)
    assert path.num_function_evaluations == 4


@torch.no_grad()
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_resampling_is_the_stock_scheduler(unet, clean, prediction_type):
    stock = DDIMScheduler(**STOCK, prediction_type=prediction_type)
    stock.set_timesteps(10)
    expected = clean
    for timestep in stock.timesteps[-4:]:
        output = unet(expected, timestep, TEXT.prompt_embeds).sample
        expected = stock.step(output, timestep, expected).prev_sample
    path = path_of(unet, ReNoise.fixed_point(0), 10, prediction_type)
    sampled = path.resample(clean, path.levels[4], TEXT, 1.0, [0], keep)
    torch.testing.assert_close(sampled, expected, rtol=1e-6, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_each_repetition_brings_the_error_down(unet, clean, prediction_type):
    errors = [
        round_trip(unet, clean, ReNoise.fixed_point(count), 5, steps=25, prediction_type=prediction_type)
        for count in (0, 1, 2, 3)
    ]
    for before, after in zip(errors, errors[1:], strict=False):
        assert after < before / 5
    assert errors[3] < errors[0] / 500


@torch.no_grad()
@pytest.mark.parametrize("sigma", [0.01, 1.0])
def test_schedules_that_begin_at_the_image_or_end_with_pure_noise_are_inverted(unet, clean, sigma):
    path = path_between_ends(unet, 4, "linspace")
    assert path.timesteps == [0, 333, 666, 999] and path.levels[0] == path.levels[1] and path.levels[4].signal == 0
    level, steps = path.level(sigma), 1 if sigma < 0.5 else 3
    assert level == path.levels[steps] and path.num_timesteps([level]) == 2 * steps
    noisy = path.invert(clean, TEXT, [level], keep)[level]
    torch.testing.assert_close(path.resample(noisy, level, TEXT, 1.0, [0], keep), clean)
    with pytest.raises(ValueError, match="`num_inference_steps` must be at least 2 for a schedule that"):
        path_between_ends(unet, 1, "trailing").level(sigma)


def path_between_ends(unet, steps: int, spacing: str) -> DDIMPath:
    scheduler = DDIMScheduler(
        **SCHEDULE, prediction_type="v_prediction", timestep_spacing=spacing, rescale_betas_zero_snr=True
    )
    return DDIMPath(UNetFamily(unet, {"scheduler": scheduler}), scheduler, steps, ReNoise(1), None, lambda: False)


@torch.no_grad()
def test_noise_correction_makes_the_round_trip_exact(unet, clean):
    renoise = ReNoise(1, **{**PLAIN, "noise_correction": True})
    assert (
        round_trip(unet, clean, renoise, 5, steps=10)
        < 1e-12
        < round_trip(unet, clean, ReNoise(1, **PLAIN), 5, steps=10)
    )


@torch.no_grad()
def test_published_settings_invert_and_count_their_evaluations(unet, clean):
    path = path_of(unet, ReNoise(), 10)
    assert path.timesteps[:4] == [1, 101, 201, 301]
    level = path.levels[4]
    noisy = path.invert(clean, TEXT, [level], keep)[level]
    assert noisy.isfinite().all()
    # Six or ten evaluations of the fixed point, one of a freshly noised image, one for the correction.
    assert path.num_function_evaluations == 3 * (6 + 2) + (10 + 2)
    sampled = path.resample(noisy, level, TEXT, 1.0, [0], keep)
    torch.testing.assert_close(sampled, clean)
    again = path_of(unet, ReNoise(), 10)
    assert torch.equal(again.invert(clean, TEXT, [level], keep)[level], noisy), "its noise is seeded"


def test_the_average_is_of_the_evaluations_named():
    """The noise predicted is the number of the evaluation, and a step adds it."""
    start = torch.zeros(1, 1, 1, 1)
    for bounds, expected in (((1, 3), 1.5), ((0, 4), 1.5), ((3, 9), 3.0), ((4, 9), 3.0), (None, 3.0)):
        numbers: list[float] = []

        def predict(point: torch.Tensor, numbers: list[float] = numbers) -> torch.Tensor:
            numbers.append(float(len(numbers)))
            return torch.full_like(point, numbers[-1])

        settings = ReNoise(3, **{**PLAIN, "average": bounds})
        found = renoise_step(start, 500, settings, predict, step=lambda noise: start + noise, fresh=start)
        assert float(found) == pytest.approx(expected)
        assert len(numbers) == 4


def test_early_timesteps_have_repetitions_of_their_own():
    settings = ReNoise()
    assert [settings.num_iterations(timestep) for timestep in (1, 249, 250)] == [5, 5, 9]
    assert (list(settings.averaged(249)), list(settings.averaged(250))) == ([0, 1, 2, 3, 4], [8, 9])
    assert ReNoise(iterations=2).num_iterations(1) == 2


def test_regularisation_decorrelates_and_approaches_the_reference():
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(2, 4, 32, 32, generator=generator)
    noise = torch.randn(2, 4, 32, 32, generator=generator)
    smooth = noise + noise.roll(1, -1) + noise.roll(2, -1)
    settings = ReNoise(lambda_kl=0.0)
    assert pair_correlation(regularize(smooth, reference, settings)) < pair_correlation(smooth)
    settings = ReNoise(lambda_ac=0.0)
    louder = 1.5 * noise + 0.3
    assert patch_divergence(regularize(louder, reference, settings), reference) < patch_divergence(louder, reference)
    assert patch_divergence(reference, reference) == pytest.approx(0, abs=1e-3)
    assert torch.equal(regularize(noise, reference, ReNoise(lambda_kl=0, lambda_ac=0)), noise)


def test_pair_correlation_is_that_of_shifted_copies():
    """Against the mean products with copies that are shifted one by one, at the single scale of small noise."""
    noise = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.stack(
        [(noise * noise.roll(shift, axis)).mean((2, 3)) ** 2 for axis in (2, 3) for shift in (1, 2, 3)]
    )
    assert float(pair_correlation(noise)) == pytest.approx(float(expected.sum() / 3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"iterations": -1}, "`iterations` must be an integer of at least 0, got -1"),
        ({"early_iterations": 2.5}, "`early_iterations` must be an integer of at least 0, got 2.5"),
        ({"lambda_ac": -1.0}, "`lambda_ac` must be at least 0, got -1.0"),
        ({"average": (3, 3)}, r"`average` must be None or two rising numbers from 0, got \(3, 3\)"),
        ({"early_average": (1,)}, r"`early_average` must be None or two rising numbers from 0, got \(1,\)"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ReNoise(**settings)
