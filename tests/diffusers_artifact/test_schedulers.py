"""The solvers on an analytic flow, where their orders are known, and inside stock pipelines on tiny models."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxImg2ImgPipeline,
    StableDiffusion3Img2ImgPipeline,
)
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteSchedulerOutput

from diffusers_artifact.schedulers import (
    SOLVERS,
    EulerSolverScheduler,
    FireFlowSolverScheduler,
    FlowMatchSolverScheduler,
    MidpointSolverScheduler,
    UniInvSolverScheduler,
)

from ..helpers.tiny_pipelines import tiny_flux, tiny_sd3


NAMES = ["euler", "midpoint", "fireflow", "uni_inv"]
START = torch.tensor([[0.3, -0.4], [1.0, 0.5]], dtype=torch.float64)  # (batch, 2)


def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """A smooth, non-linear field in the plane that also changes with sigma."""
    a, b = x.unbind(-1)
    return torch.stack([torch.sin(2 * b) + sigma * a, torch.cos(1.5 * a) - 0.5 * b * b + sigma], -1)


def follow(scheduler: FlowMatchSolverScheduler, x: torch.Tensor) -> torch.Tensor:
    """Do what a stock pipeline's loop does."""
    for t in scheduler.timesteps:
        x = scheduler.step(velocity(x, (t.double() / 1000).to(x.dtype)), t, x, return_dict=False)[0]
    return x


def run_loop(name: str, steps: int, x: torch.Tensor, inverse: bool, **config) -> torch.Tensor:
    scheduler = SOLVERS[name](**config)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps), inverse=inverse)
    return follow(scheduler, x)


def order(errors: list[float]) -> float:
    """Return the order of convergence from errors at doubling numbers of steps, by the last two."""
    return math.log2(errors[-2] / errors[-1])


@pytest.fixture(scope="module")
def exact() -> dict[bool, torch.Tensor]:
    """Ends of both loops; the midpoint rule at 2048 steps is within 1e-6 of them."""
    return {inverse: run_loop("midpoint", 2048, START, inverse) for inverse in (False, True)}


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("name, expected", [("euler", 1), ("midpoint", 2), ("fireflow", 2), ("uni_inv", 1)])
def test_order_of_one_loop(name, expected, inverse, exact):
    errors = [(run_loop(name, steps, START, inverse) - exact[inverse]).norm().item() for steps in (16, 32, 64)]
    assert order(errors) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(
    "invert, denoise, expected",
    [
        ("euler", "euler", 1),
        ("midpoint", "midpoint", 3),
        ("fireflow", "fireflow", 3),
        ("uni_inv", "uni_inv", 2),
        ("midpoint", "euler", 1),
        ("fireflow", "euler", 1),
    ],
)
def test_order_there_and_back(invert, denoise, expected):
    errors = [
        (run_loop(denoise, steps, run_loop(invert, steps, START, True), False) - START).norm().item()
        for steps in (16, 32, 64)
    ]
    assert order(errors) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("inverse", [False, True])
def test_fireflow_is_midpoint_with_the_velocity_of_the_last_midpoint(inverse):
    """Against the rule as the paper writes it, one step after the other."""
    scheduler = FireFlowSolverScheduler(shift=3.0)
    scheduler.set_timesteps(4, inverse=inverse)
    x, grid, start_velocity = START, scheduler.sigma_grid, velocity(START, torch.tensor(scheduler.sigma_grid[0]))
    for sigma, following in zip(grid[:-1], grid[1:], strict=True):
        h = following - sigma
        start_velocity = velocity(x + h / 2 * start_velocity, torch.tensor(sigma + h / 2, dtype=torch.float64))
        x = x + h * start_velocity
    torch.testing.assert_close(follow(scheduler, START), x, rtol=1e-6, atol=1e-6)


def test_midpoint_is_rf_solver():
    """Against RF-Solver's Taylor step with a finite difference, as its paper writes it."""
    assert SOLVERS["rf_solver"] is SOLVERS["midpoint"]
    scheduler = SOLVERS["rf_solver"]()
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 8, 8), inverse=True)
    x = START
    for sigma, following in zip(scheduler.sigma_grid[:-1], scheduler.sigma_grid[1:], strict=True):
        h = following - sigma
        start = velocity(x, torch.tensor(sigma))
        middle = velocity(x + h / 2 * start, torch.tensor(sigma + h / 2))
        x = x + h * start + h**2 / 2 * (middle - start) / (h / 2)
    torch.testing.assert_close(follow(scheduler, START), x)


def test_uni_inv_crosses_each_interval_with_the_velocity_predicted_at_its_end():
    scheduler = UniInvSolverScheduler()
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 8, 8), inverse=True)
    x, last = START, velocity(START, torch.tensor(0.0))
    for sigma, following in zip(scheduler.sigma_grid[:-1], scheduler.sigma_grid[1:], strict=True):
        last = velocity(x + (following - sigma) * last, torch.tensor(following))
        x = x + (following - sigma) * last
    torch.testing.assert_close(follow(scheduler, START), x)


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize(
    "name, inverse, expected",
    [
        ("euler", False, lambda n: n),
        ("euler", True, lambda n: n),
        ("midpoint", False, lambda n: 2 * n),
        ("midpoint", True, lambda n: 2 * n),
        ("fireflow", False, lambda n: n + 1),
        ("fireflow", True, lambda n: n + 1),
        ("uni_inv", False, lambda n: n),
        ("uni_inv", True, lambda n: n + 1),
    ],
)
def test_number_of_function_evaluations(name, inverse, expected, steps):
    scheduler = SOLVERS[name]()
    scheduler.set_timesteps(steps, inverse=inverse)
    assert scheduler.num_function_evaluations == 0
    follow(scheduler, START)
    assert scheduler.num_function_evaluations == len(scheduler.timesteps) == expected(steps)
    scheduler.set_timesteps(steps)
    assert scheduler.num_function_evaluations == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "config, arguments",
    [
        ({"shift": 3.0}, {"num_inference_steps": 6}),
        ({"use_dynamic_shifting": True}, {"sigmas": np.linspace(1, 1 / 6, 6), "mu": 0.63}),
        ({"use_dynamic_shifting": True, "shift_terminal": 0.02}, {"num_inference_steps": 6, "mu": 1.15}),
        ({"use_karras_sigmas": True}, {"num_inference_steps": 6}),
    ],
)
def test_both_directions_use_the_stock_grid(name, config, arguments):
    stock, scheduler = FlowMatchEulerDiscreteScheduler(**config), SOLVERS[name](**config)
    stock.set_timesteps(**arguments)
    grid = stock.sigmas.tolist()
    scheduler.set_timesteps(**arguments)
    assert scheduler.sigma_grid == grid
    scheduler.set_timesteps(**arguments, inverse=True)
    assert scheduler.sigma_grid == grid[::-1]


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_evaluations_lie_in_the_denoising_step_they_name(name, inverse):
    scheduler = SOLVERS[name](shift=3.0)
    scheduler.set_timesteps(5, inverse=inverse)
    denoising_grid = sorted(scheduler.sigma_grid, reverse=True)
    for t, step in zip(scheduler.timesteps.tolist(), scheduler.step_of_evaluation, strict=True):
        assert denoising_grid[step + 1] - 1e-6 <= t / 1000 <= denoising_grid[step] + 1e-6
    updating = [s for s, last in zip(scheduler.step_of_evaluation, scheduler.updates_solution, strict=True) if last]
    assert updating == ([4, 3, 2, 1, 0] if inverse else [0, 1, 2, 3, 4])


@pytest.mark.parametrize(
    "scheduler_class, steps, updates",
    [
        (EulerSolverScheduler, [1, 0], [True, True]),
        (MidpointSolverScheduler, [1, 1, 0, 0], [False, True, False, True]),
        (FireFlowSolverScheduler, [1, 1, 0], [False, True, True]),
        (UniInvSolverScheduler, [1, 1, 0], [False, True, True]),
    ],
)
def test_pairing_of_inversion_with_denoising_steps(scheduler_class, steps, updates):
    scheduler = scheduler_class()
    scheduler.set_timesteps(2, inverse=True)
    assert scheduler.step_of_evaluation == steps
    assert scheduler.updates_solution == updates


def test_points_of_evaluation():
    """At N = 2 without shift the grid is 1, 0.5, 0."""
    expected = {
        "euler": ([1000, 500], [0, 500]),
        "midpoint": ([1000, 750, 500, 250], [0, 250, 500, 750]),
        "fireflow": ([1000, 750, 250], [0, 250, 750]),
        "uni_inv": ([1000, 500], [0, 500, 1000]),
    }
    for name, (denoising, inversion) in expected.items():
        scheduler = SOLVERS[name]()
        scheduler.set_timesteps(sigmas=[1.0, 0.5])
        assert scheduler.timesteps.tolist() == denoising
        scheduler.set_timesteps(sigmas=[1.0, 0.5], inverse=True)
        assert scheduler.timesteps.tolist() == inversion
        assert (scheduler.timesteps.dtype, scheduler.sigmas[-1].item()) == (torch.float32, 1)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_rounding_does_not_accumulate(name):
    """512 steps of a constant velocity are each below the resolution of bfloat16 at 4."""
    scheduler = SOLVERS[name]()
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 512, 512), inverse=True)
    x = torch.full((1, 2), 4.0, dtype=torch.bfloat16)
    for t in scheduler.timesteps:
        x = scheduler.step(torch.ones_like(x), t, x, return_dict=False)[0]
        assert x.dtype == torch.bfloat16
    assert x.tolist() == [[5.0, 5.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_keep_the_dtype_of_the_sample(dtype):
    scheduler = FireFlowSolverScheduler()
    scheduler.set_timesteps(3)
    output = scheduler.step(START.to(dtype), scheduler.timesteps[0], START.to(dtype))
    assert isinstance(output, FlowMatchEulerDiscreteSchedulerOutput)
    assert (output.prev_sample.dtype, output.prev_sample.shape) == (dtype, START.shape)


@pytest.mark.parametrize("name", NAMES)
def test_edits_between_evaluations_move_the_solution(name):
    """As inpainting does; a stock loop would lose them if the solution were kept without looking."""
    scheduler = SOLVERS[name]()
    scheduler.set_timesteps(4)
    x, shift = torch.zeros(1, 2), torch.tensor([[1.0, -2.0]])
    for index, t in enumerate(scheduler.timesteps):
        x = scheduler.step(torch.ones(1, 2), t, x, return_dict=False)[0]
        if index == 1:
            x += shift
    torch.testing.assert_close(x, shift - scheduler.sigma_grid[0])


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_loop_may_begin_at_any_evaluation(name, inverse):
    """With a constant velocity the end is exact wherever the loop begins."""
    scheduler = SOLVERS[name](shift=3.0)
    scheduler.set_timesteps(4, inverse=inverse)
    for begin in range(len(scheduler.timesteps)):
        scheduler.set_timesteps(4, inverse=inverse)
        scheduler.set_begin_index(begin)
        x = scheduler.sigmas[begin] * torch.ones(1, 2)
        for t in scheduler.timesteps[begin:]:
            x = scheduler.step(torch.ones(1, 2), t, x, return_dict=False)[0]
        torch.testing.assert_close(x, torch.full((1, 2), scheduler.sigma_grid[-1]))


@pytest.mark.parametrize("name", NAMES)
def test_scale_noise_gives_the_sample_at_each_evaluation(name):
    scheduler = SOLVERS[name]()
    scheduler.set_timesteps(4)
    noisy = scheduler.scale_noise(torch.zeros(1, 2), scheduler.timesteps[2:3], torch.ones(1, 2))
    torch.testing.assert_close(noisy, scheduler.timesteps[2].expand(1, 2) / 1000)


@pytest.mark.parametrize("name", NAMES)
def test_set_timesteps_forgets_an_unfinished_loop(name):
    scheduler = SOLVERS[name]()
    scheduler.set_timesteps(4, inverse=True)
    first = follow(scheduler, START)
    scheduler.set_timesteps(7)
    scheduler.step(START, scheduler.timesteps[0], START)
    scheduler.set_timesteps(4, inverse=True)
    assert torch.equal(follow(scheduler, START), first)


def test_errors_name_what_is_wrong():
    scheduler = FireFlowSolverScheduler()
    with pytest.raises(ValueError, match="`set_timesteps` must be called before"):
        scheduler.step(START, 1000.0, START)
    with pytest.raises(ValueError, match="`num_inference_steps` or `sigmas` must be given, got neither"):
        scheduler.set_timesteps()
    scheduler.set_timesteps(3)
    for timestep in (0, torch.tensor(0)):
        with pytest.raises(ValueError, match="`timestep` must be an entry of `timesteps`, got the integer 0"):
            scheduler.step(START, timestep, START)
    follow(scheduler, START)
    with pytest.raises(ValueError, match="`step` must be called at most 4 times"):
        scheduler.step(START, scheduler.timesteps[-1], START)
    with pytest.raises(ValueError, match="`stochastic_sampling` must be False for FireFlowSolverScheduler"):
        FireFlowSolverScheduler(stochastic_sampling=True).set_timesteps(3)
    with pytest.raises(ValueError, match="`mu`"):
        FireFlowSolverScheduler(use_dynamic_shifting=True).set_timesteps(3)


@pytest.mark.parametrize("scheduler_class", dict.fromkeys(SOLVERS.values()))
def test_configuration_round_trips(scheduler_class, tmp_path):
    stock = FlowMatchEulerDiscreteScheduler(shift=2.5, use_dynamic_shifting=True, max_shift=1.3)
    scheduler = scheduler_class.from_config(stock.config)
    scheduler.save_pretrained(tmp_path)
    for loaded in (
        scheduler_class.from_pretrained(tmp_path),
        FlowMatchEulerDiscreteScheduler.from_pretrained(tmp_path),
        FlowMatchEulerDiscreteScheduler.from_config(scheduler.config),
    ):
        assert {k: v for k, v in loaded.config.items() if k in stock.config and k[0] != "_"} == {
            k: v for k, v in stock.config.items() if k[0] != "_"
        }


@pytest.fixture(scope="module", params=["flux", "sd3"])
def pipe(request) -> DiffusionPipeline:
    return tiny_flux() if request.param == "flux" else tiny_sd3()


def generate(pipe: DiffusionPipeline, scheduler: FlowMatchEulerDiscreteScheduler, steps: int = 4, **arguments):
    """Latents, and the text of the progress bar."""
    bar = io.StringIO()
    pipe.scheduler = scheduler
    pipe.set_progress_bar_config(file=bar)
    arguments |= {"height": 64, "width": 64, "max_sequence_length": 8, "output_type": "latent"}
    generator = torch.Generator().manual_seed(0)
    latents = pipe("a cat", num_inference_steps=steps, generator=generator, **arguments).images
    return latents, bar.getvalue()


def test_euler_is_the_stock_scheduler_bit_for_bit(pipe):
    stock = FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config)
    expected, _ = generate(pipe, stock)
    actual, _ = generate(pipe, EulerSolverScheduler.from_config(stock.config))
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("name", NAMES)
def test_stock_pipelines_run_with_each_solver(pipe, name, steps):
    """Every evaluation is made, the progress bar ends full, and the solver makes a difference only it would."""
    calls = []
    hook = pipe.transformer.register_forward_hook(lambda *_: calls.append(1))
    scheduler = SOLVERS[name].from_config(pipe.scheduler.config)
    latents, bar = generate(pipe, scheduler, steps, guidance_scale=1.0)
    hook.remove()
    assert len(calls) == scheduler.num_function_evaluations == len(scheduler.timesteps)
    assert "100%" in bar.rpartition("\r")[2]
    euler, _ = generate(pipe, EulerSolverScheduler.from_config(scheduler.config), steps, guidance_scale=1.0)
    assert torch.equal(latents, euler) == (name in ("euler", "uni_inv"))


@pytest.mark.parametrize("name, expected", [("euler", 2), ("midpoint", 4), ("fireflow", 3), ("uni_inv", 2)])
def test_stock_image_to_image_runs_its_share_of_the_loop(pipe, name, expected):
    image_to_image = {"FluxPipeline": FluxImg2ImgPipeline, "StableDiffusion3Pipeline": StableDiffusion3Img2ImgPipeline}
    second = image_to_image[type(pipe).__name__](**pipe.components)
    scheduler = SOLVERS[name].from_config(pipe.scheduler.config)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    latents, _ = generate(second, scheduler, image=image, strength=0.5)
    assert scheduler.num_function_evaluations == expected
    assert latents.isfinite().all()


def test_saved_stock_pipeline_loads_with_its_solver(pipe, tmp_path: Path):
    pipe.scheduler = FireFlowSolverScheduler.from_config(pipe.scheduler.config)
    pipe.save_pretrained(tmp_path)
    loaded = DiffusionPipeline.from_pretrained(tmp_path)
    assert isinstance(loaded.scheduler, FireFlowSolverScheduler)
    assert type(loaded) is type(pipe)
