"""Policies: their steps have the distributions they say, and ratios begin at exactly 1."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler, PNDMScheduler
from torch.distributions import Normal

from training.denoiser.policy import DDIMPolicy, FlowPolicy, NoisySteps, Transition, scheduler_of_policy, walk


MEAN, SPREAD = 1.5, 0.4
NOISE_SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def ddim(steps: int = 50, spacing: str = "leading") -> DDIMScheduler:
    made = scheduler_of_policy(PNDMScheduler(**NOISE_SCHEDULE, timestep_spacing=spacing))
    made.set_timesteps(steps)
    return made


def velocity_of_gaussian(latents: torch.Tensor, sigma: float) -> torch.Tensor:
    """The exact velocity where clean latents are normal with `MEAN` and `SPREAD`: E[noise - clean | latents]."""
    signal = 1 - sigma
    variance = signal**2 * SPREAD**2 + sigma**2
    clean = MEAN + signal * SPREAD**2 / variance * (latents - signal * MEAN)
    return (latents - clean) / sigma


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def test_log_prob_is_the_mean_of_the_normal_distribution():
    mean, latents = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    expected = Normal(mean, 0.3).log_prob(latents).mean((1, 2, 3))
    torch.testing.assert_close(Transition(mean, 0.3).log_prob(latents), expected)


@pytest.mark.parametrize("noise_level", [0.3, 0.7])
def test_noisy_steps_of_a_flow_keep_mean_and_variance(noise_level):
    sigmas = torch.linspace(1, 0.005, 201).tolist()
    policy = FlowPolicy(sigmas, noise_level)
    noise = torch.randn(8, 4000, generator=torch.Generator().manual_seed(0))
    done = walk(policy, lambda x, step: velocity_of_gaussian(x, sigmas[step]), noise, range(200), generators(8))
    signal = 1 - sigmas[-1]
    assert done.latents.mean() == pytest.approx(signal * MEAN, abs=0.02)
    assert done.latents.std() == pytest.approx(math.hypot(signal * SPREAD, sigmas[-1]), abs=0.02)
    # Where the latents end is not decided by the noise that they began with.
    assert len(done.noisy) == 200 and torch.corrcoef(torch.stack([noise[0], done.latents[0]]))[0, 1] < 0.9


def test_steps_without_noise_are_those_of_the_stock_scheduler():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(6)
    policy, latents, velocity = FlowPolicy(scheduler.sigmas.tolist()), torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    expected = scheduler.step(velocity, scheduler.timesteps[0], latents, return_dict=False)[0]
    torch.testing.assert_close(policy.transition(velocity, latents, 0, noisy=False).mean, expected)
    stock = ddim(10)
    expected = stock.step(velocity, stock.timesteps[3], latents, return_dict=False)[0]
    assert torch.equal(DDIMPolicy(stock).transition(velocity, latents, 3, noisy=False).mean, expected)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_noisy_steps_of_ddim_are_those_of_the_stock_scheduler(prediction_type):
    stock = scheduler_of_policy(PNDMScheduler(**NOISE_SCHEDULE, prediction_type=prediction_type))
    stock.set_timesteps(50)
    policy, step = DDIMPolicy(stock, eta=0.8), 7
    latents, prediction, noise = (torch.randn(2, 4, 8, 8) for _ in range(3))
    expected = stock.step(prediction, stock.timesteps[step], latents, eta=0.8, variance_noise=noise).prev_sample
    found = policy.transition(prediction, latents, step, noisy=True).sample(noise)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("spacing", "last"), [("leading", 0.0206), ("trailing", 0.0285)])
def test_every_step_of_ddim_can_be_noisy(spacing, last):
    policy = DDIMPolicy(ddim(50, spacing))
    assert policy.std(49) == pytest.approx(last, abs=2e-4)
    latents = torch.randn(1, 4, 4, 4)
    assert all(policy.transition(latents, latents, step, noisy=True).mean.isfinite().all() for step in range(50))
    assert NoisySteps.of(policy).steps == tuple(range(50))


def test_ddim_takes_the_noise_schedule_of_any_scheduler_and_clips_nothing():
    made = scheduler_of_policy(EulerDiscreteScheduler(**NOISE_SCHEDULE, timestep_spacing="leading"))
    made.set_timesteps(4)
    assert not made.config.clip_sample and made.config.beta_schedule == "scaled_linear"
    flow = FlowMatchEulerDiscreteScheduler()
    assert scheduler_of_policy(flow) is flow
    latents = 30 * torch.randn(1, 4, 4, 4)
    moved = DDIMPolicy(made).transition(torch.zeros_like(latents), latents, 3, noisy=True).mean
    assert moved.abs().max() > 10


def policies() -> list[DDIMPolicy | FlowPolicy]:
    return [DDIMPolicy(ddim(5)), FlowPolicy([1.0, 0.9, 0.7, 0.4, 0.2, 0.1])]


@pytest.mark.parametrize("policy", policies(), ids=["ddim", "flow"])
def test_the_ratio_is_exactly_1_before_the_weights_change(policy):
    torch.manual_seed(0)
    network = torch.nn.Conv2d(4, 4, 3, padding=1)

    def predict(latents: torch.Tensor, step: int) -> torch.Tensor:
        return network(latents)

    way = walk(policy, predict, torch.randn(3, 4, 8, 8), (0, 2, 4), generators(3))
    assert [taken.step for taken in way.noisy] == [0, 2, 4]
    for taken in way.noisy:
        again = policy.transition(predict(taken.before, taken.step), taken.before, taken.step, noisy=True)
        log_prob = again.log_prob(taken.after)
        assert log_prob.requires_grad and torch.equal(torch.exp(log_prob - taken.log_prob), torch.ones(3))
    assert network.bias is not None
    with torch.no_grad():
        network.bias += 0.1
    again = policy.transition(predict(taken.before, taken.step), taken.before, taken.step, noisy=True)
    assert (torch.exp(again.log_prob(taken.after) - taken.log_prob) != 1).all()


def test_an_image_does_not_depend_on_its_batch():
    policy, noise = FlowPolicy([1.0, 0.6, 0.3, 0.0]), torch.randn(3, 4, 4, 4)
    together = walk(policy, lambda x, step: 0.1 * x, noise, (0, 1), generators(3))
    alone = walk(policy, lambda x, step: 0.1 * x, noise[2:], (0, 1), generators(3)[2:])
    assert torch.equal(together.latents[2:], alone.latents)


def test_steps_without_noise_are_left_out_and_can_not_be_asked_for():
    scheduler = DDIMScheduler(**NOISE_SCHEDULE, set_alpha_to_one=True, timestep_spacing="leading")
    scheduler.config["steps_offset"] = 0
    scheduler.set_timesteps(4)
    for policy in (DDIMPolicy(scheduler), FlowPolicy([1.0, 0.7, 0.4, 0.1, 0.0])):
        assert policy.std(3) == 0 and NoisySteps.of(policy).steps == (0, 1, 2)
        with pytest.raises(ValueError, match="`steps` must be among 0, 1, 2, got 3"):
            NoisySteps.of(policy, [2, 3])


def test_some_of_the_steps_are_drawn_by_a_seed():
    steps = NoisySteps.of(FlowPolicy([1.0, 0.8, 0.6, 0.4, 0.2]), [3, 1, 2], count=1)
    drawn = [steps.choose(seed) for seed in range(40)]
    assert {one for (one,) in drawn} == {1, 2, 3} and drawn == [steps.choose(seed) for seed in range(40)]
    assert NoisySteps((1, 2)).choose(0) == (1, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FlowPolicy([1.0, 0.5], 0.0), "`noise_level` must be above 0"),
        (lambda: FlowPolicy([0.5, 0.5]), "`sigmas` must be two or more that fall"),
        (lambda: FlowPolicy([1.2, 0.5]), "within 1 … 0"),
        (lambda: DDIMPolicy(ddim(), 0.0), r"`eta` must lie in \(0, 1\], .*, got 0.0"),
        (lambda: DDIMPolicy(ddim(), 1.5), r"`eta` must lie in \(0, 1\], .*, got 1.5"),
        (lambda: DDIMPolicy(scheduler_of_policy(PNDMScheduler(**NOISE_SCHEDULE))), "call `set_timesteps` first"),
        (lambda: NoisySteps(()), "`steps` must be one or more"),
        (lambda: NoisySteps((1, 2), 3), "`count` must lie between 1 and 2"),
    ],
)
def test_what_can_not_be_a_policy_is_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()
