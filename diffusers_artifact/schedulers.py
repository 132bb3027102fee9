"""Solvers of the flow ODE dx/dsigma = v(x, sigma), as schedulers that walk it from noise to data and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    SchedulerMixin,  # noqa: F401  # `from_pretrained` of a saved pipeline looks for this name beside its scheduler
)
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteSchedulerOutput


@dataclass(frozen=True)
class Evaluation:
    """
    One call of the model within a solver's walk.

    Args:
        sigma (`float`): Noise level at which the model is evaluated.
        interval (`int`): Interval of the sigma grid that it belongs to, in the order of the walk.
        updates (`bool`): Whether its velocity carries the solution to the end of that interval.
    """

    sigma: float
    interval: int
    updates: bool


class FlowMatchSolverScheduler(FlowMatchEulerDiscreteScheduler, ABC):
    r"""
    Base of the solvers: the stock scheduler's configuration and sigma grid, walked in either direction.

    Between two evaluations the next point is always the solution moved to that point's sigma along the last velocity,
    so a solver is nothing but the list of its evaluations, and the same `step` serves all of them. Any checkpoint's
    scheduler converts with `from_config(pipe.scheduler.config)`, and stock pipelines run with the result: `timesteps`
    has one entry for every call of the model.

    The solution is kept between evaluations in float32 or better, whatever dtype the model works in; only the points
    handed out are rounded to the dtype of `sample`. A caller that edits such a point, as inpainting does, moves the
    solution by the same amount.

    Attributes:
        timesteps (`torch.Tensor` of shape `(evaluations,)`): Where the model is evaluated, sigma times
            `num_train_timesteps`.
        sigmas (`torch.Tensor` of shape `(evaluations + 1,)`): The same as sigmas, and the sigma of the result.
        sigma_grid (`list[float]`): The `num_inference_steps + 1` sigmas of the solution, in the order of the walk.
        step_of_evaluation (`list[int]`): For each evaluation, the *denoising* step `i` between whose ends (number `i`
            and `i + 1` of the grid from noise to data) it lies. When inverting the numbers fall, so equal numbers pair
            evaluations of the two directions.
        updates_solution (`list[bool]`): For each evaluation, whether its velocity carries the solution across the
            interval. There is exactly one such evaluation for every step.
        num_function_evaluations (`int`): Calls of `step` since `set_timesteps`.
        order (`int`): Evaluations for each step as stock pipelines count them: they take the number of timesteps for
            the number of steps if they passed `sigmas`, and it is 1 then.
    """

    timesteps: torch.Tensor
    sigmas: torch.Tensor
    num_function_evaluations = 0
    _evaluations: tuple[Evaluation, ...] = ()

    @staticmethod
    @abstractmethod
    def _plan(grid: list[float], inverse: bool) -> list[Evaluation]:
        """The evaluations of a walk along `grid`, of `num_inference_steps + 1` sigmas in the order of the walk."""

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        sigmas: Sequence[float] | np.ndarray | None = None,
        mu: float | None = None,
        inverse: bool = False,
    ) -> None:
        r"""
        Lays out a walk and forgets the one before.

        The stock scheduler's `timesteps` argument is absent, because evaluations lie between the grid's points too.

        Args:
            num_inference_steps (`int`, *optional*): Number of steps; may be left out if `sigmas` are given.
            device (`str` or `torch.device`, *optional*): Where `timesteps` and `sigmas` are placed.
            sigmas (`Sequence[float]` or `np.ndarray`, *optional*): Falling noise levels before shifting, without the
                final 0.
            mu (`float`, *optional*): Shift that belongs to the image's size, for dynamic shifting.
            inverse (`bool`, *optional*, defaults to `False`): Walk the same grid from data (sigma 0) to noise.

        Raises:
            ValueError: neither or contradicting `num_inference_steps` and `sigmas`, `mu` missing, a single step where
                the configuration stretches the grid, or one that asks for stochastic sampling, which no ODE solver
                does.
        """
        if self.config.stochastic_sampling:
            raise ValueError(f"`stochastic_sampling` must be False for {type(self).__name__}, got True")
        if num_inference_steps is None and sigmas is None:
            raise ValueError("`num_inference_steps` or `sigmas` must be given, got neither")
        if self.config.shift_terminal and 1 in (num_inference_steps, None if sigmas is None else len(sigmas)):
            raise ValueError("`num_inference_steps` must be at least 2 for a schedule with `shift_terminal`, got 1")
        super().set_timesteps(num_inference_steps, device=device, sigmas=sigmas, mu=mu)
        denoising_grid = self.sigmas.tolist()
        last = len(denoising_grid) - 2
        self.sigma_grid = denoising_grid[::-1] if inverse else denoising_grid
        self._evaluations = tuple(self._plan(self.sigma_grid, inverse))
        self.step_of_evaluation = [last - e.interval if inverse else e.interval for e in self._evaluations]
        self.updates_solution = [e.updates for e in self._evaluations]
        self.order = 1 if sigmas is not None else len(self._evaluations) // self.num_inference_steps

        # Python floats of the same values: sizes of steps are exact, and reading one does not wait for a GPU.
        self._sigmas = [e.sigma for e in self._evaluations] + self.sigma_grid[-1:]
        self.sigmas = torch.tensor(self._sigmas, dtype=torch.float32, device=self.sigmas.device)
        self.timesteps = self.sigmas[:-1] * self.config.num_train_timesteps
        self.num_function_evaluations = 0

    def step(
        self,
        model_output: torch.Tensor,
        timestep: float | torch.Tensor,
        sample: torch.Tensor,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
    ) -> FlowMatchEulerDiscreteSchedulerOutput | tuple[torch.Tensor]:
        r"""
        Takes the velocity at one evaluation and gives the point of the next, or the result after the last.

        Args:
            model_output (`torch.Tensor` of shape `(batch, ...)`): Velocity at `sample` and `timestep`.
            timestep (`float` or `torch.Tensor`): The entry of `timesteps`. Without `set_begin_index` the first call
                finds its place in the walk by it.
            sample (`torch.Tensor` of shape `(batch, ...)`): The point of this evaluation.
            generator (`torch.Generator`, *optional*): Accepted as by the stock scheduler; nothing is random.
            return_dict (`bool`, *optional*, defaults to `True`): Whether to return an output object.

        Returns:
            `FlowMatchEulerDiscreteSchedulerOutput` or a tuple of one: `prev_sample` of `sample`'s shape and dtype.

        Raises:
            ValueError: `timestep` is an integer, `set_timesteps` was not called, or the walk has ended.
        """
        if isinstance(timestep, int) or (isinstance(timestep, torch.Tensor) and not timestep.is_floating_point()):
            raise ValueError(f"`timestep` must be an entry of `timesteps`, got the integer {timestep}")
        if not self._evaluations:
            raise ValueError("`set_timesteps` must be called before `step`")
        if self.step_index is None:
            self._init_step_index(timestep)
        if self.step_index >= len(self._evaluations):
            raise ValueError(
                f"`step` must be called at most {len(self._evaluations)} times, once for each of `timesteps`; "
                "call `set_timesteps` to start again"
            )
        self._accept(sample)
        self._advance(model_output)
        prev_sample = self._next_point().to(sample.dtype)
        return FlowMatchEulerDiscreteSchedulerOutput(prev_sample=prev_sample) if return_dict else (prev_sample,)

    def _accept(self, sample: torch.Tensor) -> None:
        if self.num_function_evaluations == 0:
            # A walk may begin at any evaluation (image to image), where the sample is all there is.
            self._solution = sample.to(torch.promote_types(sample.dtype, torch.float32))
            self._solution_sigma = self._sigmas[self.step_index]
        else:
            self._solution = self._solution + (sample - self._next_point().to(sample.dtype))

    def _advance(self, velocity: torch.Tensor) -> None:
        evaluation = self._evaluations[self.step_index]
        self._velocity = velocity.to(self._solution.dtype)
        if evaluation.updates:
            end = self.sigma_grid[evaluation.interval + 1]
            self._solution = self._solution + (end - self._solution_sigma) * self._velocity
            self._solution_sigma = end
        self._step_index += 1
        self.num_function_evaluations += 1

    def _next_point(self) -> torch.Tensor:
        return self._solution + (self._sigmas[self.step_index] - self._solution_sigma) * self._velocity


class EulerSolverScheduler(FlowMatchSolverScheduler):
    """
    Explicit Euler: N evaluations, order 1. Denoising with it is the stock scheduler bit for bit.

    It evaluates each interval where it enters: at its noisier end when denoising, at the other when inverting.
    """

    @staticmethod
    def _plan(grid: list[float], inverse: bool) -> list[Evaluation]:
        return [Evaluation(sigma, interval, True) for interval, sigma in enumerate(grid[:-1])]


class MidpointSolverScheduler(FlowMatchSolverScheduler):
    r"""
    Explicit midpoint rule, and with it RF-Solver: 2N evaluations, order 2.

    RF-Solver (arXiv 2411.04746) takes a second-order Taylor step whose derivative is the difference between the
    velocities at the start, v0, and at the midpoint, vm. As x + h v0 + (h² / 2) (vm - v0) / (h / 2) = x + h vm, the
    two are the same.
    """

    @staticmethod
    def _plan(grid: list[float], inverse: bool) -> list[Evaluation]:
        pairs = zip(grid, _midpoints(grid), strict=False)
        return [e for sigma, middle in pairs for e in (Evaluation(sigma, middle.interval, False), middle)]


class FireFlowSolverScheduler(FlowMatchSolverScheduler):
    """
    FireFlow (arXiv 2412.07517): the midpoint rule with the last midpoint's velocity in place of the one at the start
    of each step but the first: N + 1 evaluations, order 2.
    """

    @staticmethod
    def _plan(grid: list[float], inverse: bool) -> list[Evaluation]:
        return [Evaluation(grid[0], 0, False), *_midpoints(grid)]


class UniInvSolverScheduler(FlowMatchSolverScheduler):
    """
    Uni-Inv (UniEdit-Flow, arXiv 2504.13109), made to be undone by plain Euler: N + 1 evaluations to invert, N to
    denoise.

    Inversion predicts the next point of the grid with the last velocity, and crosses the interval from its start with
    the velocity there, which is nearly the one Euler will use to come back: order 1 either way, 2 there and back.
    """

    @staticmethod
    def _plan(grid: list[float], inverse: bool) -> list[Evaluation]:
        if not inverse:
            return EulerSolverScheduler._plan(grid, inverse)
        ends = [Evaluation(sigma, interval, True) for interval, sigma in enumerate(grid[1:])]
        return [Evaluation(grid[0], 0, False), *ends]


def _midpoints(grid: list[float]) -> list[Evaluation]:
    bounds = zip(grid[:-1], grid[1:], strict=True)
    return [Evaluation((start + end) / 2, interval, True) for interval, (start, end) in enumerate(bounds)]


SOLVERS: dict[str, type[FlowMatchSolverScheduler]] = {
    "euler": EulerSolverScheduler,
    "midpoint": MidpointSolverScheduler,
    "rf_solver": MidpointSolverScheduler,
    "fireflow": FireFlowSolverScheduler,
    "uni_inv": UniInvSolverScheduler,
}
"""Solvers by name. Invert and denoise with the same one: FireFlow or midpoint undone by Euler falls to order 1."""
