"""The loss of preferences is the formula, for flows and for models that predict noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from datasets_script.utils.errors import ArgumentError
from training.denoiser.lora import LoraSettings, add_lora
from training.denoiser.preference import LatentPair, PreferenceSettings, compare, latent_mask, preference_loss
from training.denoiser.rollout import Denoiser, SamplingSettings

from ...helpers.tiny_pipelines import tiny_flux, tiny_sdxl


@pytest.fixture(scope="module", params=["flow", "epsilon"])
def denoiser(request) -> Denoiser:
    """A tiny FLUX or SDXL with a LoRA that has been trained."""
    pipe, length = (tiny_flux(), 8) if request.param == "flow" else (tiny_sdxl(), None)
    denoiser = Denoiser(pipe, SamplingSettings(2, 3.5, 32, 48, max_sequence_length=length))
    generator = torch.Generator().manual_seed(0)
    for weight in add_lora(denoiser, LoraSettings(rank=2), seed=0).values():
        weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
    return denoiser


@pytest.fixture(scope="module")
def pair(denoiser) -> LatentPair:
    generator = torch.Generator().manual_seed(1)
    latents, noise = (torch.randn(2, *denoiser.latent_shape, generator=generator) for _ in range(2))
    mask = torch.zeros(denoiser.latent_shape[1:], dtype=torch.bool)
    mask[1:3, 2:5] = True
    return LatentPair(latents, mask, noise)


def errors(denoiser, pair, conditions, noise, time, mask_weight) -> np.ndarray:
    """Errors of both images, one at a time, by the definition."""
    weights = 1 + (mask_weight - 1) * pair.mask.double()
    found = []
    for image, own in zip(pair.latents, noise, strict=True):
        if denoiser.is_flow:
            sample, timestep, wanted = (1 - time) * image + time * own, 1000 * time, own - image
        else:
            share = denoiser.scheduler.alphas_cumprod[time]
            sample, timestep, wanted = share.sqrt() * image + (1 - share).sqrt() * own, time, own
        with torch.no_grad():
            one = denoiser.evaluate(sample[None], timestep[None], conditions, guided=False)[0]
        found.append(float((weights * (one - wanted).double() ** 2).mean()))
    return np.array(found)


@pytest.mark.parametrize("source", ["own", "random"])
@pytest.mark.parametrize("form", ["bounded", "sigmoid"])
def test_the_loss_is_the_formula(denoiser, pair, form, source):
    settings = PreferenceSettings(form=form, mask_weight=7.0, margin=0.5, beta=3.0, noise=source, clean_weight=0.25)
    conditions = denoiser.encode_prompts(["a cat"])
    found = compare(denoiser, pair, conditions, settings, torch.Generator().manual_seed(2))

    generator = torch.Generator().manual_seed(2)
    time = denoiser.draw_times(1, generator)[0]
    noise = (
        pair.noise
        if source == "own"
        else torch.randn(denoiser.latent_shape, generator=generator).expand(2, -1, -1, -1)
    )
    trained = errors(denoiser, pair, conditions, noise, time, 7.0)
    denoiser.model.disable_adapters()
    reference = errors(denoiser, pair, conditions, noise, time, 7.0)
    denoiser.model.enable_adapters()
    clean, flawed = trained - reference
    gap = flawed - clean
    loss = max(0.0, 0.5 - gap) if form == "bounded" else math.log(1 + math.exp(-1.5 * gap))
    assert abs(gap) > 1e-3
    assert found.gap.item() == pytest.approx(gap, rel=1e-3, abs=1e-4)
    assert found.clean_rise.item() == pytest.approx(clean, rel=1e-3, abs=1e-4)
    assert found.loss.item() == pytest.approx(loss + 0.25 * max(0.0, clean), rel=1e-3, abs=1e-4)


def test_before_training_the_gap_is_zero_and_only_the_lora_learns():
    denoiser = Denoiser(tiny_flux(), SamplingSettings(2, 3.5, 32, 48, max_sequence_length=8))
    parameters = add_lora(denoiser, LoraSettings(rank=2), seed=0)
    latents = torch.randn(2, *denoiser.latent_shape, generator=torch.Generator().manual_seed(0))
    pair = LatentPair(latents, torch.ones(denoiser.latent_shape[1:], dtype=torch.bool))
    settings = PreferenceSettings(noise="random")
    conditions = denoiser.encode_prompts(["a cat"])
    found = compare(denoiser, pair, conditions, settings, torch.Generator().manual_seed(0))
    assert found.gap.item() == 0 and found.loss.item() == pytest.approx(settings.margin)
    found.loss.backward()
    assert any(weight.grad.abs().max() > 0 for weight in parameters.values())
    assert all(one.grad is None for one in denoiser.model.parameters() if not one.requires_grad)
    with pytest.raises(ValueError, match="`noise` must be 'random' for pairs that were made without `--store-noise`"):
        compare(denoiser, pair, conditions, PreferenceSettings(), torch.Generator())


def test_a_pair_that_has_reached_the_margin_teaches_nothing_more():
    gap = torch.tensor([0.005, 0.02], requires_grad=True)
    preference_loss(gap, torch.zeros(2), PreferenceSettings()).sum().backward()
    assert gap.grad.tolist() == [-1.0, 0.0]
    gap.grad = None
    preference_loss(gap, torch.zeros(2), PreferenceSettings(form="sigmoid")).sum().backward()
    assert (gap.grad < 0).all()


def test_a_mask_keeps_lines_that_are_thinner_than_a_cell():
    mask = torch.zeros(32, 48, dtype=torch.bool)
    mask[13:16, :] = True
    cells = latent_mask(mask, 4, 6)
    assert cells.shape == (4, 6) and cells.nonzero()[:, 0].unique().tolist() == [1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"form": "hinge"}, "`form` must be among bounded, sigmoid"),
        ({"noise": "none"}, "`noise` must be among own, random"),
        ({"margin": 0}, "`margin` must be above 0, got 0"),
        ({"mask_weight": -1}, "`mask_weight` must be at least 0, got -1"),
    ],
)
def test_mistakes_are_told(values, message):
    with pytest.raises(ArgumentError, match=message):
        PreferenceSettings(**values)
