"""Best of 2^r on the real pipelines of every family: what is drawn, what is kept, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, FluxImg2ImgPipeline
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor

from diffusers_artifact.best_of_n import (
    Draw,
    NonFiniteImageError,
    best_of_n,
    candidate_seed,
    curve_of,
    draw_candidates,
    plan_draws,
)

from ..helpers.tiny_pipelines import (
    tiny_flux,
    tiny_flux2,
    tiny_qwen_image,
    tiny_sd,
    tiny_sd3,
    tiny_sdxl,
)


FAMILIES = (tiny_flux, tiny_sd3, tiny_sdxl, tiny_sd, tiny_flux2, tiny_qwen_image)
CALL: dict[str, Any] = {"num_inference_steps": 2, "height": 32, "width": 32}


def quiet(build: Callable[[], DiffusionPipeline]) -> DiffusionPipeline:
    pipeline = build()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def sd() -> DiffusionPipeline:
    return quiet(tiny_sd)


def brightness(images: list[Image.Image]) -> list[float]:
    return [float(np.asarray(image).mean()) for image in images]


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=int)


@pytest.mark.parametrize("build", FAMILIES)
def test_a_batch_equals_one_by_one_and_one_is_the_stock_image(build):
    pipeline = quiet(build)
    draws = [
        Draw("a", "a red fox", 0, 5),
        Draw("b", "two hands on a table", 0, 6),
        Draw("b", "two hands on a table", 1, 7),
    ]
    (together,) = draw_candidates(pipeline, draws, batch_size=3, **CALL)
    one_by_one = [found[0] for found in draw_candidates(pipeline, draws, **CALL)]
    for batched, single in zip(together, one_by_one, strict=True):
        assert np.abs(pixels(batched.image) - pixels(single.image)).max() <= 1
    stock = pipeline(prompt="a red fox", generator=torch.Generator().manual_seed(5), **CALL).images[0]
    assert np.array_equal(pixels(one_by_one[0].image), pixels(stock))
    # Another noise is another image, for the same prompt too.
    assert np.abs(pixels(one_by_one[1].image) - pixels(one_by_one[2].image)).mean() > 0.5


def test_the_best_so_far_is_kept(sd):
    found = best_of_n(sd, ["a fox", "a fox"], brightness, best_of=4, seed=3, batch_size=5, **CALL)
    for place, result in enumerate(found):
        scores = [score for score in result.scores if score is not None]
        assert len(result.seeds) == len(scores) == 7 and len(set(result.seeds)) == 7
        best = int(np.argmax(scores))
        assert result.seed == result.seeds[best]
        assert brightness([result.image]) == [scores[best]]
        assert result.curve == (scores[0], max(scores[:3]), max(scores))
        assert result.seeds == tuple(candidate_seed(3, str(place), number) for number in range(7))
        redrawn = sd("a fox", generator=torch.Generator().manual_seed(result.seed), **CALL).images[0]
        assert np.abs(pixels(redrawn) - pixels(result.image)).max() <= 1
    # Equal prompts are drawn from noises of their own, and a longer search begins as a shorter one.
    assert not set(found[0].seeds) & set(found[1].seeds)
    assert plan_draws("0", "a fox", 4, 3)[:3] == plan_draws("0", "a fox", 2, 3)


def test_a_search_continues_with_the_draws_that_are_left(sd):
    draws = plan_draws("fox", "a fox", 4, 0)
    whole = [candidate for batch in draw_candidates(sd, draws, brightness, **CALL) for candidate in batch]
    parts = [
        candidate
        for left in (draws[:3], draws[3:])
        for batch in draw_candidates(sd, left, brightness, **CALL)
        for candidate in batch
    ]
    assert [candidate.score for candidate in parts] == [candidate.score for candidate in whole]


def test_callbacks_and_negative_prompts_reach_the_pipeline(sd):
    steps: list[int] = []

    def count(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        steps.append(step)
        return tensors

    draws = plan_draws("fox", "a fox", 2, 0)
    options = {**CALL, "callback_on_step_end": count, "negative_prompt": "blurred"}
    (guided,) = draw_candidates(sd, draws, batch_size=3, **options)
    (plain,) = draw_candidates(sd, draws, batch_size=3, **CALL)
    assert steps and any(np.any(pixels(a.image) != pixels(b.image)) for a, b in zip(guided, plain, strict=True))


def test_a_scorer_may_return_tensors(sd):
    def scorer(images: list[Image.Image]) -> torch.Tensor:
        return torch.tensor(brightness(images))

    assert all(isinstance(score, float) for score in best_of_n(sd, ["a fox"], scorer, best_of=1, **CALL)[0].scores)


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (lambda images: [1.0], "a number for each of 2 images, got 1 numbers"),
        (lambda images: 0.5, "a sequence of numbers, got 0.5"),
        (lambda images: [0.1, float("nan")], "finite numbers, got .0.1, nan."),
    ],
)
def test_a_scorer_that_does_not_score_is_refused(sd, scorer, message):
    with pytest.raises(ValueError, match=f"`scorer` must return {message}"):
        best_of_n(sd, ["a fox", "a cup"], scorer, best_of=1, batch_size=2, **CALL)


def test_a_withheld_image_is_never_the_best():
    """A safety checker puts a black image in place of another, in which a detector would find nothing."""
    pipeline = tiny_sd()
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**small, "image_size": 32, "patch_size": 16, "projection_dim": 8}
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=8)).eval()
    checker.concept_embeds_weights.fill_(-2)  # below any cosine: each image is flagged
    size = {"height": 32, "width": 32}
    pipeline.register_modules(
        safety_checker=checker, feature_extractor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
    )
    pipeline.set_progress_bar_config(disable=True)
    (result,) = best_of_n(pipeline, ["a fox"], brightness, best_of=2, batch_size=2, **CALL)
    assert result.scores == (None, None, None) and result.curve == (None, None)
    assert result.seed == result.seeds[0] and not pixels(result.image).any()


def test_an_image_that_is_not_finite_is_refused():
    pipeline = quiet(tiny_sd)
    with torch.no_grad():
        pipeline.vae.decoder.conv_out.bias.fill_(torch.nan)
    with pytest.raises(NonFiniteImageError, match="not finite, on cpu in torch.float32; load the model in bfloat16"):
        best_of_n(pipeline, ["a fox"], brightness, best_of=1, **CALL)


def test_what_cannot_be_searched_is_refused(sd):
    with pytest.raises(ValueError, match="`best_of` must be a power of two .*, got 6"):
        best_of_n(sd, ["a fox"], brightness, best_of=6)
    with pytest.raises(TypeError, match="`prompts` must be a list of texts, got the text 'a fox'"):
        best_of_n(sd, "a fox", brightness)
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        best_of_n(sd, ["a fox"], brightness, batch_size=0)
    with pytest.raises(ValueError, match="`true_cfg_scale` must be an argument of StableDiffusionPipeline"):
        best_of_n(sd, ["a fox"], brightness, true_cfg_scale=2.0)
    with pytest.raises(ValueError, match="`generator` must be left to the search"):
        best_of_n(sd, ["a fox"], brightness, generator=torch.Generator())
    with pytest.raises(TypeError, match="`prompt` alone, as FluxPipeline does, got FluxImg2ImgPipeline"):
        best_of_n(FluxImg2ImgPipeline(**tiny_flux().components), ["a fox"], brightness)


def test_curves_end_with_complete_rounds():
    assert curve_of([]) == ()
    assert curve_of([0.5, 0.25]) == (0.5,)
    assert curve_of([None, 0.25, None, 0.75]) == (None, 0.25)
