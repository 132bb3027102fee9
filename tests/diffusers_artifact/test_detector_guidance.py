"""Guidance by detectors on tiny pipelines of every family: no-op, batch, strength, and what it lowers."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, cpu_offload_with_hook
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FluxPipeline,
    LCMScheduler,
    PNDMScheduler,
)
from diffusers.hooks import apply_group_offloading
from diffusers.utils import is_sentencepiece_available

from datasets_script import PixelDetector
from diffusers_artifact import EMBEDDED_MODEL, ArtifactInjectionPipeline, DetectorGuidance, GuidanceSettings
from diffusers_artifact.detector_guidance import settings_for
from diffusers_artifact.guidance_gradients import guiding_direction
from diffusers_artifact.guidance_observer import StepObserver
from diffusers_artifact.schedulers import SOLVERS

from ..helpers.tiny_detectors import tiny_network, tiny_record
from ..helpers.tiny_pipelines import (
    TEXT_DIM,
    tiny_chroma,
    tiny_flux,
    tiny_flux2,
    tiny_kolors,
    tiny_qwen_image,
    tiny_sd,
    tiny_sd3,
    tiny_sdxl,
)


SIZE = {"height": 32, "width": 48}
STEADY = GuidanceSettings(strength=0.2, final_strength=0.2)


def redness(images: torch.Tensor) -> torch.Tensor:
    """A detector that takes red for artifacts."""
    return images[:, 0]


@cache
def sd_with_ddim(prediction_type: str = "epsilon") -> DiffusionPipeline:
    pipe = tiny_sd(prediction_type)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False, set_alpha_to_one=True)
    return pipe


PIPELINES: dict[str, Callable[[], DiffusionPipeline]] = {
    "FLUX.1": cache(tiny_flux),
    "FLUX.2": cache(tiny_flux2),
    "Chroma": cache(tiny_chroma),
    "SD3.5": cache(tiny_sd3),
    "Qwen-Image": cache(tiny_qwen_image),
    "SD1.5, PNDM": cache(tiny_sd),
    "SD1.5, DDIM": sd_with_ddim,
    "SD2, v, DDIM": partial(sd_with_ddim, "v_prediction"),
    "SDXL, Euler": cache(tiny_sdxl),
    "Kolors, Euler": cache(tiny_kolors),
}


# diffusers has no Kolors without sentencepiece.
NEEDS_SENTENCEPIECE = pytest.mark.skipif(not is_sentencepiece_available(), reason="sentencepiece is not installed")
FAMILIES = [pytest.param(name, marks=NEEDS_SENTENCEPIECE if "Kolors" in name else ()) for name in PIPELINES]


def prompts(name: str, rows: int) -> dict[str, Any]:
    if name == "FLUX.2":
        return {"prompt_embeds": torch.ones(rows, 4, 3 * TEXT_DIM)}
    if name.startswith("Kolors"):
        text, pooled = torch.ones(rows, 4, TEXT_DIM), torch.ones(rows, TEXT_DIM)
        of_negative = {"negative_prompt_embeds": -text, "negative_pooled_prompt_embeds": -pooled}
        return {"prompt_embeds": text, "pooled_prompt_embeds": pooled, **of_negative}
    short = {"max_sequence_length": 16} if name in ("FLUX.1", "Chroma", "SD3.5") else {}
    negative = {"negative_prompt": ["dog"] * rows} if name == "Qwen-Image" else {}
    return {"prompt": ["cat"] * rows, **short, **negative}


def draw(name: str, seeds: Sequence[int], guidance: DetectorGuidance | None = None, **arguments: Any) -> torch.Tensor:
    pipe = PIPELINES[name]()
    pipe.set_progress_bar_config(disable=True)
    given = {
        "num_inference_steps": 2,
        "output_type": "pt",
        "generator": [torch.Generator().manual_seed(seed) for seed in seeds],
        **SIZE,
        **prompts(name, len(seeds)),
        **arguments,
    }
    if guidance is None:
        return pipe(**given).images
    with guidance.attached(pipe):
        return pipe(**given, callback_on_step_end=guidance).images


@cache
def drawn(name: str, output_type: str = "pt") -> torch.Tensor:
    """Draw seeds 0 and 1 without guidance."""
    return draw(name, [0, 1], output_type=output_type)


# Every family


@pytest.mark.parametrize("name", FAMILIES)
def test_no_strength_is_the_stock_pipeline(name):
    idle = DetectorGuidance(redness, settings=GuidanceSettings(strength=0.0))
    assert torch.equal(draw(name, [0, 1], idle), drawn(name))
    assert idle.steps == []


@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_is_a_loop_and_the_autoencoder_is_left_as_it_was(name):
    guidance = DetectorGuidance(redness, settings=STEADY)
    vae = PIPELINES[name]().vae
    before = {parameter: parameter.requires_grad for parameter in vae.parameters()}
    guided = draw(name, [0, 1], guidance)
    batched = guidance.steps
    assert [step.step for step in batched] == list(range(PIPELINES[name]().num_timesteps))
    assert {parameter: parameter.requires_grad for parameter in vae.parameters()} == before
    assert not vae.is_gradient_checkpointing
    torch.testing.assert_close(draw(name, [1], guidance)[0], guided[1], rtol=1e-3, atol=1e-4)
    assert [step.losses[0][0] for step in guidance.steps] == pytest.approx(
        [step.losses[0][1] for step in batched], rel=1e-3
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_a_shift_has_the_strength_of_its_step_and_lowers_the_loss(name):
    """At the last step, because latents are clean after it in all families."""
    last = DetectorGuidance(redness, settings=replace(STEADY, start=0.5))
    shift = draw(name, [0, 1], last, output_type="latent") - drawn(name, "latent")
    torch.testing.assert_close(shift.flatten(1).pow(2).mean(1).sqrt(), torch.full((2,), 0.2), rtol=1e-3, atol=0)
    assert redness(draw(name, [0, 1], last)).mean((1, 2)).lt(redness(drawn(name)).mean((1, 2))).all()


# The gradient


def decoder_of(name: str) -> tuple[Any, torch.Tensor]:
    family = StepObserver(PIPELINES[name]()).family
    channels = family.vae.config.get("z_dim") or family.vae.config.latent_channels
    return family, torch.randn(2, channels, 4, 6, generator=torch.Generator().manual_seed(3))


def directions(name: str, losses: list[Callable], checkpoint: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    return guiding_direction(*decoder_of(name), losses, checkpoint)


def brightness(images: torch.Tensor) -> torch.Tensor:
    return images.mean((1, 2, 3)) + images[:, 0, :8].pow(2).mean((1, 2))


@pytest.mark.parametrize("name", ["FLUX.1", "FLUX.2", "Qwen-Image", "SDXL, Euler"])
def test_the_direction_is_that_of_finite_differences(name):
    family, clean = decoder_of(name)
    direction, values = directions(name, [brightness])
    assert torch.allclose(direction.flatten(1).norm(dim=1), torch.ones(2))

    exact = type(family)(family.model, {**family.components, "vae": copy.deepcopy(family.vae).double()})

    @torch.no_grad()
    def loss(latents: torch.Tensor) -> torch.Tensor:
        return brightness((exact.decode_latents(latents.double()) / 2 + 0.5).clamp(0, 1))

    def slope(along: torch.Tensor) -> torch.Tensor:
        return (loss(clean + 1e-3 * along.double()) - loss(clean - 1e-3 * along.double())) / 2e-3

    torch.testing.assert_close(values[0], loss(clean).float())
    steepest = slope(direction)
    for seed in range(3):
        other = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
        expected = steepest * (direction * other).sum((1, 2, 3))
        scale = float(steepest.abs().max() * other.flatten(1).norm(dim=1).max())
        torch.testing.assert_close(slope(other), expected.double(), rtol=0, atol=1e-3 * scale)


@pytest.mark.parametrize("name", ["FLUX.1", "FLUX.2", "SDXL, Euler"])
def test_checkpointing_does_not_change_the_direction(name):
    assert torch.equal(
        directions(name, [brightness], checkpoint=True)[0], directions(name, [brightness], checkpoint=False)[0]
    )


def test_checkpointing_that_was_on_stays_on():
    vae = PIPELINES["FLUX.1"]().vae
    vae.enable_gradient_checkpointing()
    directions("FLUX.1", [brightness])
    assert vae.is_gradient_checkpointing
    vae.disable_gradient_checkpointing()


def test_an_ensemble_averages_directions_and_opponents_cancel():
    def darkness(images: torch.Tensor) -> torch.Tensor:
        return images[:, :, 4:].pow(2).mean((1, 2, 3))

    (bright, _), (dark, _) = directions("FLUX.1", [brightness]), directions("FLUX.1", [darkness])
    both, values = directions("FLUX.1", [brightness, darkness])
    torch.testing.assert_close(both, (bright + dark) / 2, rtol=1e-4, atol=1e-7)
    assert len(values) == 2

    settings = replace(STEADY, exponent=1.0)
    torn = DetectorGuidance([redness, lambda images: 1 - redness(images)], settings=settings)
    guided = draw("SDXL, Euler", [0, 1], torn)
    assert max(max(step.agreement) for step in torn.steps) < 1e-4
    torch.testing.assert_close(guided, drawn("SDXL, Euler"), rtol=1e-3, atol=1e-4)


def test_a_reward_is_a_detector_with_the_sign_turned():
    settings = replace(STEADY, exponent=1.0)
    rewarded = DetectorGuidance(rewards=lambda images: -redness(images).mean((1, 2)), settings=settings)
    guided = draw("SD3.5", [0], rewarded)
    torch.testing.assert_close(guided, draw("SD3.5", [0], DetectorGuidance(redness, settings=settings)))


def test_gradients_too_small_to_square_count_and_no_gradient_shifts_nothing():
    def confident(images: torch.Tensor) -> torch.Tensor:
        return 1e-15 * redness(images)

    exponent_1 = replace(STEADY, exponent=1.0)
    tiny, plain = (
        draw("SDXL, Euler", [0], DetectorGuidance(guide, settings=exponent_1)) for guide in (confident, redness)
    )
    torch.testing.assert_close(tiny, plain, rtol=1e-3, atol=1e-4)
    blind = DetectorGuidance(lambda images: 0 * redness(images), settings=STEADY)
    assert torch.equal(draw("SDXL, Euler", [0, 1], blind), drawn("SDXL, Euler"))
    assert [step.agreement for step in blind.steps] == [(0.0, 0.0)] * 2


def test_a_float16_autoencoder_runs_in_float32_and_comes_back():
    family, clean = decoder_of("SDXL, Euler")
    full = directions("SDXL, Euler", [brightness])[0]
    vae = family.vae
    weights = {name: weight.clone() for name, weight in vae.state_dict().items()}
    try:
        vae.to(torch.float16)
        halves = {name: weight.clone() for name, weight in vae.state_dict().items()}
        half = directions("SDXL, Euler", [brightness])[0]
        assert vae.dtype == torch.float16
        assert all(torch.equal(weight, halves[name]) for name, weight in vae.state_dict().items())
    finally:
        vae.to(torch.float32)
        vae.load_state_dict(weights)
    assert torch.nn.functional.cosine_similarity(half.flatten(1), full.flatten(1)).min() > 0.99


# Schedulers and precisions


def test_ddim_and_euler_are_guided_alike():
    """They are one method in two variables, so the strength must mean the same in both."""
    euler = PIPELINES["SDXL, Euler"]()
    config = dict(euler.scheduler.config)
    stock = euler.scheduler
    try:
        images = []
        for kind, changes in ((EulerDiscreteScheduler, {}), (DDIMScheduler, {"set_alpha_to_one": True})):
            euler.scheduler = kind.from_config({**config, "clip_sample": False, **changes})
            guidance = DetectorGuidance(redness, settings=STEADY)
            images.append(draw("SDXL, Euler", [0], guidance, num_inference_steps=3))
    finally:
        euler.scheduler = stock
    torch.testing.assert_close(images[0], images[1], rtol=1e-3, atol=1e-3)


def test_pndm_predicts_what_ddim_does():
    """At the first step, where all that either knows is the noise."""
    losses = []
    for name in ("SD1.5, PNDM", "SD1.5, DDIM"):
        guidance = DetectorGuidance(redness, settings=STEADY)
        draw(name, [0], guidance)
        losses.append(guidance.steps[0].losses)
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-4)


@pytest.mark.parametrize("solver", ["euler", "midpoint"])
def test_solvers_of_this_package_are_guided(solver):
    pipe = PIPELINES["FLUX.1"]()
    guidance = DetectorGuidance(redness, settings=STEADY)
    reference, stock = draw("FLUX.1", [0], guidance), pipe.scheduler
    try:
        pipe.scheduler = SOLVERS[solver].from_config(stock.config)
        guided = draw("FLUX.1", [0], guidance)
    finally:
        pipe.scheduler = stock
    assert len(guidance.steps) == (2 if solver == "euler" else 4)
    assert redness(guided).mean() < redness(drawn("FLUX.1")[0:1]).mean()
    if solver == "euler":
        torch.testing.assert_close(guided, reference)


def test_bfloat16_takes_the_velocity_of_the_pipeline():
    guidance = DetectorGuidance(redness, settings=STEADY)
    draw("FLUX.1", [0], guidance)
    exact = [step.losses[0][0] for step in guidance.steps]
    pipe = PIPELINES["FLUX.1"]()
    weights = {name: part.state_dict() for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    try:
        pipe.to(torch.bfloat16)
        draw("FLUX.1", [0], guidance)
    finally:
        pipe.to(torch.float32)
        for name, values in weights.items():
            pipe.components[name].load_state_dict(values)
    assert [step.losses[0][0] for step in guidance.steps] == pytest.approx(exact, rel=0.05)


# Offloading


def test_offloaded_autoencoders_are_guided():
    expected = draw("FLUX.1", [0], DetectorGuidance(redness, settings=STEADY))
    for offload in ("model", "sequential"):
        pipe = tiny_flux()
        pipe.set_progress_bar_config(disable=True)
        if offload == "model":
            _, hook = cpu_offload_with_hook(pipe.transformer, execution_device="cpu")
            cpu_offload_with_hook(pipe.vae, execution_device="cpu", prev_module_hook=hook)
        else:
            cpu_offload(pipe.vae, execution_device="cpu", offload_buffers=True)
        guidance = DetectorGuidance(redness, settings=STEADY)
        with guidance.attached(pipe):
            guided = pipe(
                **prompts("FLUX.1", 1),
                **SIZE,
                num_inference_steps=2,
                generator=torch.Generator().manual_seed(0),
                output_type="pt",
                callback_on_step_end=guidance,
            ).images
        torch.testing.assert_close(guided, expected)


def test_an_autoencoder_offloaded_by_groups_is_refused():
    pipe = tiny_sd3()
    apply_group_offloading(pipe.vae, torch.device("cpu"), offload_type="leaf_level")
    with pytest.raises(ValueError, match="`pipeline.vae` must not be offloaded by groups"):
        with DetectorGuidance(redness).attached(pipe):
            pass


# Records, settings, detectors


def test_steps_are_recorded_for_the_last_call():
    settings = GuidanceSettings(strength=0.1, start=0.25, end=0.75)
    guidance = DetectorGuidance([redness, brightness_map], settings=settings)
    draw("SD3.5", [0, 1], guidance, num_inference_steps=4)
    draw("SD3.5", [0, 1], guidance, num_inference_steps=4)
    recorded = json.loads(json.dumps(guidance.to_dict()))
    assert recorded["settings"]["strength"] == 0.1
    assert [step["step"] for step in recorded["steps"]] == [1, 2]
    assert all(len(step["losses"]) == 2 and len(step["losses"][0]) == 2 for step in recorded["steps"])


def brightness_map(images: torch.Tensor) -> torch.Tensor:
    return images.mean(1, keepdim=True)


def test_strengths_fall_by_a_power():
    assert GuidanceSettings().strengths(3) == pytest.approx([0.05, 0.002 + 0.048 / 4, 0.002])
    assert GuidanceSettings(strength=0.1, power=1, final_strength=0.0).strengths(3) == pytest.approx([0.1, 0.05, 0])
    assert GuidanceSettings().strengths(1) == [0.05]
    assert [step for step, strength in enumerate(settings_for(PIPELINES["FLUX.2"]()).strengths(30)) if strength] == [
        *range(5, 18)
    ]
    assert settings_for(PIPELINES["FLUX.2"]()).exponent == 3
    assert settings_for(PIPELINES["SDXL, Euler"]()) == GuidanceSettings()


@pytest.mark.parametrize(
    "changes",
    [
        {"strength": -0.1},
        {"final_strength": float("nan")},
        {"exponent": 0.5},
        {"start": 0.5, "end": 0.5},
        {"end": 1.5},
    ],
)
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(ValueError, match="must be"):
        GuidanceSettings(**changes)


def test_a_pixel_detector_guides_the_embedded_model():
    detector = PixelDetector(tiny_network("mit_b0"), tiny_record())
    pipe = FluxPipeline.from_pretrained(
        EMBEDDED_MODEL, text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None
    )
    pipe.set_progress_bar_config(disable=True)
    width = pipe.transformer.config.joint_attention_dim
    pooled = pipe.transformer.config.pooled_projection_dim
    losses = []
    for strength in (0.0, 0.1):
        guidance = DetectorGuidance(
            detector.artifact_map, settings=GuidanceSettings(strength=strength, final_strength=strength)
        )
        with guidance.attached(pipe):
            images = pipe(
                prompt_embeds=torch.zeros(1, 1, width),
                pooled_prompt_embeds=torch.zeros(1, pooled),
                height=64,
                width=64,
                num_inference_steps=3,
                generator=torch.Generator().manual_seed(0),
                output_type="pt",
                callback_on_step_end=guidance,
            ).images
        losses.append(float(detector.artifact_map(images).pow(2).mean()))
    assert losses[1] < losses[0]


# Mistakes


def test_a_call_without_the_callback_is_told_and_the_scheduler_is_left_alone():
    pipe = PIPELINES["SDXL, Euler"]()
    for steps in (1, 2):
        with pytest.raises(RuntimeError, match="its images are not guided"):
            with DetectorGuidance(redness).attached(pipe):
                draw("SDXL, Euler", [0], num_inference_steps=steps)
        assert "step" not in vars(pipe.scheduler) and not pipe.unet._forward_pre_hooks
    guidance = DetectorGuidance(redness)
    with pytest.raises(RuntimeError, match="inside `with guidance.attached"):
        draw("SDXL, Euler", [0], callback_on_step_end=guidance)
    with guidance.attached(pipe), pytest.raises(ValueError, match="must not be nested"):
        with guidance.attached(pipe):
            pass


@pytest.mark.parametrize(
    ("detector", "message"),
    [
        (lambda images: images.mean(), "a row for each of 1 images, got \\(\\)"),
        (lambda images: "clean", "got str"),
        (lambda images: images, "maps of shape"),
        (lambda images: redness(images).detach(), "let gradients pass"),
        (lambda images: 5 * redness(images), "values in \\[0, 1\\]"),
        (lambda images: redness(images) / 0, "finite"),
    ],
)
def test_detectors_that_give_something_else_are_told(detector, message):
    with pytest.raises(ValueError, match=f"`detectors` must .*{message}"):
        draw("SD3.5", [0], DetectorGuidance(detector))


def test_rewards_that_give_maps_are_told():
    with pytest.raises(ValueError, match="`rewards` must give numbers"):
        draw("SD3.5", [0], DetectorGuidance(rewards=redness))


def test_guides_must_be_functions_and_not_in_training():
    with pytest.raises(ValueError, match="at least one function"):
        DetectorGuidance()
    with pytest.raises(ValueError, match="`rewards` must be functions or modules, got str"):
        DetectorGuidance(redness, rewards=["reward"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="in evaluation mode, got Linear"):
        with DetectorGuidance(torch.nn.Linear(3, 1).train()).attached(PIPELINES["SD3.5"]()):
            pass


def test_pipelines_that_are_not_supported_are_told():
    pipe = tiny_sd()
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    with pytest.raises(ValueError, match="got LCMScheduler; for a U-Net, set"):
        with DetectorGuidance(redness).attached(pipe):
            pass
    pipe.scheduler = PNDMScheduler.from_config(pipe.scheduler.config, skip_prk_steps=False)
    with pytest.raises(ValueError, match="must have `skip_prk_steps=True`"):
        with DetectorGuidance(redness).attached(pipe):
            pass
    with pytest.raises(ValueError, match="must be a stock pipeline, .*got ArtifactInjectionPipeline"):
        with DetectorGuidance(redness).attached(ArtifactInjectionPipeline.from_pretrained(EMBEDDED_MODEL)):
            pass
