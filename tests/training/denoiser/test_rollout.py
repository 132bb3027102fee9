"""Rollouts are those of the stock pipelines, and their gradients those of the last steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, FluxPipeline
from diffusers.utils import is_sentencepiece_available

from datasets_script.utils.errors import ArgumentError
from diffusers_artifact.family import Conditioning, TransformerFamily
from training.denoiser.lora import (
    LoraSettings,
    add_lora,
    load_base_lora,
    save_lora,
    trained_parameters,
    without_lora,
)
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
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}
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
    return SamplingSettings(STEPS, scale, **{**SIZE, "max_sequence_length": length, **changes})


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
    assert not torch.allclose(my_images(denoiser, conditions.select([1, 0])), stock, **CLOSE)
    denoiser.drop_text_encoders()
    with pytest.raises(RuntimeError, match="before `drop_text_encoders`"):
        denoiser.encode_prompts(PROMPTS)


@pytest.mark.skipif(not is_sentencepiece_available(), reason="diffusers has no Kolors without sentencepiece")
def test_images_of_kolors_are_the_stock_pipelines():
    pipe = tiny_kolors()
    torch.manual_seed(0)
    embeds, negative = torch.randn(2, 2, 8, TEXT_DIM)
    pooled, negative_pooled = torch.randn(2, 2, TEXT_DIM)
    negative, negative_pooled = negative[:1].expand(2, -1, -1), negative_pooled[:1].expand(2, -1)
    stock = stock_images(
        pipe,
        5.0,
        prompt_embeds=embeds,
        pooled_prompt_embeds=pooled,
        negative_prompt_embeds=negative,
        negative_pooled_prompt_embeds=negative_pooled,
    )
    conditions = Conditions(Conditioning(embeds, pooled), Conditioning(negative[:1], negative_pooled[:1]))
    torch.testing.assert_close(my_images(Denoiser(pipe, settings_for("", 5.0)), conditions), stock, **CLOSE)


def test_another_scheduler_is_used():
    pipe = tiny_sd()
    ddim = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    denoiser = Denoiser(pipe, settings_for("SD1.5", 7.5), ddim)
    conditions = denoiser.encode_prompts(PROMPTS)
    pipe.scheduler = ddim
    stock = stock_images(pipe, 7.5, prompt=PROMPTS)
    torch.testing.assert_close(my_images(denoiser, conditions), stock, **CLOSE)


def gradients(denoiser: Denoiser, conditions: Conditions, latents: torch.Tensor) -> list[torch.Tensor]:
    weights = list(add_lora_once(denoiser).values())
    return list(torch.autograd.grad(denoiser.decode(latents).square().mean(), weights))


def add_lora_once(denoiser: Denoiser) -> dict[str, torch.nn.Parameter]:
    if not hasattr(denoiser.model, "peft_config"):
        add_lora(denoiser, LoraSettings(rank=2), seed=0)
        with torch.no_grad():
            for name, weight in trained_parameters(denoiser).items():
                if "lora_B" in name:  # zero at first, where lora_A has no gradient
                    weight.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    return trained_parameters(denoiser)


def held_rollout(denoiser: Denoiser, conditions: Conditions, last: int) -> torch.Tensor:
    """Denoise with everything in the graph, but the predictions of the steps before the last ones held constant."""
    denoiser.rollout(denoiser.start(denoiser.noise(SEEDS)), conditions)
    denoiser.begin()
    latents = denoiser.start(denoiser.noise(SEEDS)).requires_grad_()
    for index in range(denoiser.num_evaluations):
        prediction = denoiser.predict(latents, index, conditions)
        if index < denoiser.num_evaluations - last:
            prediction = prediction.detach()
        latents = denoiser.step(prediction, index, latents)
    return latents


@pytest.mark.parametrize("name", ["dev", "SDXL", "SD1.5"])
def test_the_truncated_gradient_is_that_of_the_last_steps(name):
    denoiser = make(name)
    conditions = denoiser.encode_prompts(PROMPTS)
    add_lora_once(denoiser)
    start = denoiser.start(denoiser.noise(SEEDS))
    plain = denoiser.rollout(start, conditions)
    assert not plain.requires_grad
    found = {}
    for last in (1, 2, denoiser.num_evaluations):
        truncated = denoiser.rollout(start, conditions, last)
        assert torch.equal(truncated, plain)
        found[last] = gradients(denoiser, conditions, truncated)
        wanted = gradients(denoiser, conditions, held_rollout(denoiser, conditions, last))
        torch.testing.assert_close(found[last], wanted, rtol=1e-4, atol=1e-9)
    assert all(not torch.allclose(one, two) for one, two in zip(found[1], found[2], strict=True) if one.any())
    with pytest.raises(ValueError, match="`gradient_steps` must lie between 0 and"):
        denoiser.rollout(start, conditions, denoiser.num_evaluations + 1)


@pytest.mark.parametrize("name", ["dev", "SDXL"])
def test_gradients_with_checkpointing_are_equal(name):
    denoiser = make(name)
    conditions, start = denoiser.encode_prompts(PROMPTS), denoiser.start(denoiser.noise(SEEDS))
    add_lora_once(denoiser)
    plain = gradients(denoiser, conditions, denoiser.rollout(start, conditions, 2))
    denoiser.enable_checkpointing()
    assert denoiser.model.is_gradient_checkpointing and denoiser.vae.is_gradient_checkpointing
    recomputed = gradients(denoiser, conditions, denoiser.rollout(start, conditions, 2))
    assert all(torch.equal(one, two) for one, two in zip(plain, recomputed, strict=True))
    assert any(one.any() for one in plain)


@pytest.mark.parametrize("name", ["dev", "SD3.5", "SDXL", "SD1.5"])
def test_a_saved_lora_gives_its_images_in_the_stock_pipeline(name, tmp_path):
    denoiser, scale = make(name), PIPELINES[name][1]
    conditions = denoiser.encode_prompts(PROMPTS)
    before = my_images(denoiser, conditions)
    # Alpha is half the rank: a file without it would be read as if they were equal.
    weights = add_lora(denoiser, LoraSettings(rank=4, alpha=2), seed=0)
    torch.testing.assert_close(my_images(denoiser, conditions), before, **CLOSE)
    torch.manual_seed(0)
    for weight in weights.values():
        weight.data.normal_(std=0.3)
    tuned = my_images(denoiser, conditions)
    assert (tuned - before).abs().max() > 1e-2
    with without_lora(denoiser):
        torch.testing.assert_close(my_images(denoiser, conditions), before, **CLOSE)
    assert torch.equal(my_images(denoiser, conditions), tuned)
    assert all(weight.requires_grad for weight in weights.values())
    save_lora(denoiser, tmp_path)

    pipe = PIPELINES[name][0]()
    pipe.load_lora_weights(tmp_path)
    length = denoiser.settings.max_sequence_length
    torch.testing.assert_close(stock_images(pipe, scale, length, prompt=PROMPTS), tuned, **CLOSE)
    pipe.unload_lora_weights()
    torch.testing.assert_close(stock_images(pipe, scale, length, prompt=PROMPTS), before, **CLOSE)


def test_a_lora_is_trained_on_top_of_another(tmp_path):
    """As on a DreamBooth LoRA: it stays when the trained one is left out, and is not saved with it."""
    first = make("dev")
    for weight in add_lora(first, LoraSettings(rank=2), seed=1).values():
        weight.data.normal_(std=0.3)
    save_lora(first, tmp_path / "subject")
    conditions = first.encode_prompts(PROMPTS)
    subject = my_images(first, conditions)

    denoiser = make("dev")
    load_base_lora(denoiser, str(tmp_path / "subject"))
    weights = add_lora(denoiser, LoraSettings(rank=4, alpha=2), seed=2)
    torch.testing.assert_close(my_images(denoiser, conditions), subject, **CLOSE)
    for weight in weights.values():
        weight.data.normal_(std=0.3)
    both = my_images(denoiser, conditions)
    with without_lora(denoiser):
        torch.testing.assert_close(my_images(denoiser, conditions), subject, **CLOSE)
    trained = [weight for weight in denoiser.model.parameters() if weight.requires_grad]
    assert len(trained) == len(weights) and torch.equal(my_images(denoiser, conditions), both)
    save_lora(denoiser, tmp_path / "treated")

    pipe = tiny_flux()
    pipe.load_lora_weights(tmp_path / "subject", adapter_name="subject")
    pipe.load_lora_weights(tmp_path / "treated", adapter_name="treated")
    pipe.set_adapters(["subject", "treated"])
    torch.testing.assert_close(stock_images(pipe, 3.5, 16, prompt=PROMPTS), both, **CLOSE)
    with pytest.raises(ArgumentError, match="`base_lora` must be a LoRA for FluxPipeline"):
        load_base_lora(make("dev"), str(tmp_path / "none"))


def test_a_lora_is_float32_on_a_bfloat16_base():
    pipe: FluxPipeline = tiny_flux().to(torch.bfloat16)
    denoiser = Denoiser(pipe, settings_for("dev", 3.5))
    conditions = denoiser.encode_prompts(PROMPTS)
    weights = add_lora(denoiser, LoraSettings(rank=2), seed=0)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert denoiser.model.dtype == torch.bfloat16 and denoiser.vae.dtype == torch.float32
    latents = denoiser.rollout(denoiser.start(denoiser.noise(SEEDS)), conditions, 1)
    assert latents.dtype == torch.float32
    found = torch.autograd.grad(denoiser.decode(latents).mean(), list(weights.values()))
    assert all(one.isfinite().all() for one in found) and any(one.any() for one in found)


@pytest.mark.parametrize("name", ["dev", "SDXL", "SD2"])
def test_the_loss_is_zero_for_a_perfect_prediction(name):
    """What should be predicted leads back to the clean latents, by the scheduler's own formula."""
    denoiser = make(name)
    clean, noise = torch.randn(2, 2, *denoiser.latent_shape, generator=torch.Generator().manual_seed(0))
    times = denoiser.draw_times(2, torch.Generator().manual_seed(0))
    sample, timestep, wanted = denoiser.noised(clean, noise, times)
    if denoiser.is_flow:
        torch.testing.assert_close(sample - times[:, None, None, None] * wanted, clean)
        assert (times > 0).all() and (times < 1).all() and torch.equal(timestep, 1000 * times)
    else:
        share = denoiser.scheduler.alphas_cumprod[times][:, None, None, None]
        if name == "SD2":
            found = share.sqrt() * sample - (1 - share).sqrt() * wanted
        else:
            found = (sample - (1 - share).sqrt() * wanted) / share.sqrt()
        torch.testing.assert_close(found, clean, rtol=1e-3, atol=1e-3)
    conditions = denoiser.encode_prompts(PROMPTS)
    losses = denoiser.denoising_loss(clean, conditions, noise, times)
    # Each image has its own time.
    for row in range(2):
        alone = denoiser.denoising_loss(
            clean[row : row + 1], conditions.select([row]), noise[row : row + 1], times[row : row + 1]
        )
        torch.testing.assert_close(alone, losses[row : row + 1])


def test_flow_times_are_shifted_as_the_schedule():
    denoiser = make("schnell")
    drawn = denoiser.draw_times(2000, torch.Generator().manual_seed(0))
    stock = make("schnell")
    middle = denoiser.scheduler.time_shift(mu_of(stock), 1.0, torch.tensor(0.5))
    assert abs(float(drawn.median() - middle)) < 0.02


def mu_of(denoiser: Denoiser) -> float:
    assert isinstance(denoiser.family, TransformerFamily)
    tokens = denoiser.latent_shape[1] * denoiser.latent_shape[2] // 4
    return denoiser.family.timestep_arguments(1, tokens, denoiser.pipeline.scheduler)["mu"]


def test_photos_are_a_start():
    denoiser = make("dev", start_sigma=0.6)
    assert denoiser.sigmas.tolist() == pytest.approx([0.6, 0.45, 0.3, 0.15, 0.0])
    images = torch.rand(2, 3, SIZE["height"], SIZE["width"], generator=torch.Generator().manual_seed(0))
    clean = denoiser.encode_images(images)
    assert clean.shape[1:] == denoiser.latent_shape
    noise = denoiser.noise(SEEDS)
    torch.testing.assert_close(denoiser.start(noise, clean), 0.4 * clean + 0.6 * noise)
    assert denoiser.rollout(denoiser.start(noise, clean), denoiser.encode_prompts(PROMPTS)).shape == clean.shape
    with pytest.raises(ValueError, match="`clean` must be given with `start_sigma`"):
        denoiser.start(noise)


def test_what_is_not_supported_is_refused():
    with pytest.raises(ArgumentError, match="`pipeline` must be one of FluxPipeline, .*, got ChromaPipeline"):
        Denoiser(tiny_chroma(), settings_for("dev", 1.0))
    with pytest.raises(ArgumentError, match="`start_sigma` must be left out for StableDiffusionPipeline"):
        make("SD1.5", start_sigma=0.5)
    with pytest.raises(ArgumentError, match="`height` and `width` must be multiples of 16"):
        make("dev", height=40)
    with pytest.raises(ArgumentError, match="`target_modules` must name layers of the transformer, got nothing"):
        add_lora(make("dev"), LoraSettings(target_modules=("nothing",)), 0)
