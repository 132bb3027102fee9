"""Reinforcement learning on tiny pipelines: ratios begin at 1, a dense reward rises, and only the LoRA moves."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from datasets_script.utils.errors import ArgumentError, UserError
from training.denoiser.data import Item, Items
from training.denoiser.guards import Guards
from training.denoiser.loop import DenoiserLoop, LoopArguments, LoopResult, Update
from training.denoiser.lora import ATTENTION, LoraSettings, add_lora
from training.denoiser.pictures import PictureSet
from training.denoiser.policy import FlowPolicy, scheduler_of_policy
from training.denoiser.policy_objective import PolicyArguments, PolicyObjective
from training.denoiser.rewards.function import FunctionReward
from training.denoiser.rewards.registry import WeightedSum
from training.denoiser.rollout import Denoiser, SamplingSettings

from ...helpers.tiny_pipelines import tiny_flux, tiny_sd, tiny_sd3, tiny_sdxl


PIPELINES: dict[str, Callable[[], Any]] = {"flux": tiny_flux, "sd3": tiny_sd3, "sd": tiny_sd, "sdxl": tiny_sdxl}
# Layers next to the output: by their attention, random networks of this size hardly change an image.
LAST_LAYER = {"flux": ("proj_out",), "sd": ("conv_out",)}
PROMPTS = ("a cat", "a dog")


def brightness(images, prompts):
    return [float(np.asarray(image).mean()) / 255 for image in images]


def light(weight=1.0):
    return WeightedSum({"light": (weight, FunctionReward("brightness", brightness))})


def make_loop(folder, kind="flux", rewards=None, layers=ATTENTION, steps=3, guidance=1.0, loop=None, **settings):
    pipeline = PIPELINES[kind]()
    length = 8 if kind == "flux" else None
    sampling = SamplingSettings(steps, guidance, 32, 32, max_sequence_length=length)
    denoiser = Denoiser(pipeline, sampling, scheduler_of_policy(pipeline.scheduler))
    conditions = denoiser.encode_prompts(PROMPTS)
    train = Items(tuple(Item(prompt, prompt) for prompt in PROMPTS), conditions)
    settings = {"prompts_per_step": 1, "group_size": 4, "batch_size": 4, **settings}
    objective = PolicyObjective(denoiser, train, rewards or light(), PolicyArguments(**settings))
    parameters = add_lora(denoiser, LoraSettings(rank=4, target_modules=layers), seed=0)
    pictures = PictureSet(PROMPTS, (7, 8), conditions, batch_size=2)
    given = {"learning_rate": 0.03, "weight_decay": 0.0, "ema_decay": 0.0, "guard_steps": 100, "save_steps": 100}
    args = LoopArguments(output_dir=str(folder), disable_tqdm=True, **{**given, **(loop or {})})
    return DenoiserLoop(denoiser, parameters, objective, Guards({}), pictures, args, Accelerator(cpu=True))


def standard_errors(result: LoopResult, images: int, some: int = 10) -> float:
    """How much higher the mean reward of the last steps is than of the first, in standard errors of the difference."""
    first, last = ([entry["reward"] for entry in part] for part in (result.log[:some], result.log[-some:]))
    spread = np.mean([entry["reward_std"] for entry in result.log])
    return float((np.mean(last) - np.mean(first)) / (spread * np.sqrt(2 / (some * images))))


@pytest.mark.parametrize("kind", PIPELINES)
def test_ratios_begin_at_exactly_1_and_only_the_lora_moves(kind, tmp_path):
    guidance = 3.0 if kind != "sdxl" else 1.0
    loop = make_loop(tmp_path, kind, guidance=guidance, kl_weight=0.5, batch_size=2, updates=2)
    model, objective, update = loop.denoiser.model, loop.objective, Update(loop, 1)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    batch, _ = objective._draw(update, [0, 0, 1, 1])
    assert torch.isfinite(batch.pictures.images).all() and batch.pictures.prompts == ("a cat", "a cat")
    for taken in batch.trajectory.noisy:
        prediction = loop.denoiser.predict(taken.before, taken.step, batch.conditions)
        again = objective.policy.transition(prediction, taken.before, taken.step, noisy=True)
        assert torch.equal(torch.exp(again.log_prob(taken.after) - taken.log_prob), torch.ones(2))
    assert not torch.equal(batch.trajectory.latents[0], batch.trajectory.latents[1])
    logged = objective.step(update)
    # The second update is of a policy that has changed, and has left the model before training.
    assert logged["first_ratio"] == 1 != logged["ratio"] and logged["clipped"] > 0 and logged["kl"] > 0
    moved = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
    assert moved and all("lora_" in name for name in moved)


@pytest.mark.parametrize("kind", LAST_LAYER)
def test_a_dense_reward_rises(kind, tmp_path):
    loop = make_loop(tmp_path, kind, layers=LAST_LAYER[kind], group_size=16, batch_size=16, loop={"max_steps": 30})
    result = loop.run()
    assert standard_errors(result, 16) > 3
    # On other noise, without any in the steps.
    assert result.readings[-1].score > result.before.score + 0.005


def test_what_is_rewarded_less_falls_and_the_divergence_holds_back(tmp_path):
    options = {"layers": ("proj_out",), "group_size": 16, "batch_size": 16, "loop": {"max_steps": 8}}
    free, held = (
        make_loop(tmp_path / str(weight), rewards=light(-1.0), kl_weight=weight, **options).run()
        for weight in (1e-9, 10.0)
    )
    assert free.readings[-1].score > free.before.score
    assert 0 < held.log[-1]["kl"] < free.log[-1]["kl"] / 2


def test_a_prompts_past_is_continued(tmp_path):
    options = {"baseline": "prompt", "group_size": 1, "prompts_per_step": 2, "batch_size": 2, "buffer_least": 4}
    options["loop"] = {"max_steps": 6, "save_steps": 4}
    whole = make_loop(tmp_path / "whole", **options)
    result = whole.run()
    assert whole.objective.state()["rewards"].shape == (2, 16) and "equal_groups" not in result.log[0]
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    again = make_loop(tmp_path / "again", **options)
    assert again.run(tmp_path / "again" / "checkpoint-4") == result
    assert all(torch.equal(weight, again.parameters[name]) for name, weight in whole.parameters.items())
    states = [loop.objective.state()["rewards"].nan_to_num(-1.0) for loop in (whole, again)]
    assert torch.equal(*states) and (states[0][:, -3:] > 0).all()


def test_groups_may_share_their_noise_and_draw_it_in_some_steps(tmp_path):
    loop = make_loop(tmp_path, steps=5, same_noise=True, noisy_steps=[1, 2], noisy_count=1, loop={"max_steps": 1})
    (batch,) = loop.objective._draw(Update(loop, 3), [0, 0, 1, 1])
    (taken,) = batch.trajectory.noisy
    assert taken.step in (1, 2)
    # Up to the noisy step, images of a group are one.
    assert torch.equal(taken.before[0], taken.before[1]) and not torch.equal(taken.after[0], taken.after[1])
    assert "first_ratio" in loop.run().log[0]


def test_a_rollout_may_start_from_noised_images():
    denoiser = Denoiser(tiny_flux(), SamplingSettings(3, 1.0, 32, 32, max_sequence_length=8, start_sigma=0.6))
    clean = torch.randn(2, *denoiser.latent_shape)
    train = Items((Item("a.png", ""), Item("b.png", "")), denoiser.encode_prompts(["", ""]), clean)
    objective = PolicyObjective(denoiser, train, light(), PolicyArguments(1, 2, 2, same_noise=True))
    assert isinstance(objective.policy, FlowPolicy)
    assert objective.policy.sigmas[0] == pytest.approx(0.6) and objective.noisy_steps.steps == (0, 1)
    (batch,) = objective._draw(OneNoise(), [0, 1])
    before = batch.trajectory.noisy[0].before
    # The same noise, added to the one and the other image.
    torch.testing.assert_close(before[0] - before[1], 0.4 * (clean[0] - clean[1]), atol=1e-5, rtol=1e-5)


class OneNoise(Update):
    """An update without a loop, which gives all images of all prompts the same noise to begin with."""

    def __init__(self) -> None:
        self.step, self.rank, self.world_size = 1, 0, 1

    def seed(self, name: str, index: int = 0) -> int:
        return 0

    def generator(self, name: str, index: int = 0) -> torch.Generator:
        return torch.Generator().manual_seed(index)


def test_equal_rewards_teach_nothing(tmp_path):
    rewards = WeightedSum({"flat": (1.0, FunctionReward("flat", lambda images, prompts: [0.5] * len(images)))})
    result = make_loop(tmp_path, rewards=rewards, loop={"max_steps": 1}).run()
    assert result.log[0]["equal_groups"] == 1 and result.log[0]["grad_norm"] == 0


def test_images_that_overflow_are_told(tmp_path):
    loop = make_loop(tmp_path, loop={"max_steps": 1})
    with torch.no_grad():
        loop.denoiser.model.proj_out.weight.fill_(torch.inf)
    with pytest.raises(UserError, match="--dtype must hold the model's numbers, which overflowed in an image"):
        list(loop.objective._draw(Update(loop, 1), [0] * 4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group_size": 0}, "`group_size` must be at least 1, got 0"),
        ({"group_size": 1}, "`group_size` must be at least 2 for the baseline 'group', got 1"),
        ({"batch_size": 7}, "`batch_size` must divide the 128 images of a step"),
        ({"updates": 3}, "`updates` must divide the 16 batches of a step, got 3"),
        ({"eta": 0.0}, r"`eta` must lie in \(0, 1\], .*, got 0.0"),
        ({"eta": 1.5}, r"`eta` must lie in \(0, 1\], .*, got 1.5"),
        ({"clip_range": -1.0}, "`clip_range` must be above 0"),
        ({"kl_weight": -1.0}, "`kl_weight` must be at least 0"),
        ({"buffer_least": 1}, "`buffer_least` must lie between 2 and `buffer_size`"),
    ],
)
def test_arguments_are_checked(changes, message):
    with pytest.raises(ArgumentError, match=message):
        PolicyArguments(**changes)


def test_steps_that_can_not_be_noisy_are_told(tmp_path):
    with pytest.raises(ArgumentError, match="`noisy_steps` must be among 0, 1, got 2"):
        make_loop(tmp_path, noisy_steps=[2])
    with pytest.raises(ArgumentError, match="`noisy_count` must lie between 1 and 2"):
        make_loop(tmp_path, noisy_count=3)
