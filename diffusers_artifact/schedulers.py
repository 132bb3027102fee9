"""Solvers of the flow ODE dx/dsigma = v(x, sigma) as diffusers schedulers, from noise to data and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    SchedulerMixin,  # noqa: F401  # `from_pretrained` of a saved pipeline looks this name up beside its scheduler
)
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteSchedulerOutput


@dataclass(frozen=True)
class Evaluation:
    """
    One evaluation of the model in a solver's loop.

    Args:
        sigma (`float`): Noise level at which the model is evaluated.
        interval (`int`): Index of its interval of the sigma grid, in the order of the loop.
        updates (`bool`): Whether its velocity moves the solution to the end of that interval.
    """

    sigma: float
    interval: int
    updates: bool


class FlowMatchSolverScheduler(FlowMatchEulerDiscreteScheduler, ABC):
    r"""
    Base of the solvers: the stock scheduler's configuration and sigma grid, in either direction.

    The point of the next evaluation is always the solution, moved to that point's sigma along the last velocity. A
    solver is therefore defined by the list of its evaluations, and all solvers share `step`. Any checkpoint's
    scheduler converts with `from_config(pipe.scheduler.config)`, and stock pipelines run with the result: `timesteps`
    has one entry for every evaluation.

    The solution is kept in float32 or better between evaluations, whatever the model's dtype; only the points returned
    are rounded to the dtype of `sample`. If the caller edits such a point, as inpainting does, the solution moves by
    the same amount.

    Attributes:
        timesteps (`torch.Tensor` of shape `(evaluations,)`): Sigma of each evaluation times `num_train_timesteps`.
        sigmas (`torch.Tensor` of shape `(evaluations + 1,)`): Sigma of each evaluation, and of the result.
        sigma_grid (`list[float]`): The `num_inference_steps + 1` sigmas of the solution, in the order of the loop.
        step_of_evaluation (`list[int]`): For each evaluation, the *denoising* step `i` between whose ends (entries `i`
            and `i + 1` of the grid from noise to data) it lies. The numbers fall when inverting, so that equal numbers
            pair evaluations of both directions.
        updates_solution (`list[bool]`): For each evaluation, whether its velocity moves the solution across the
            interval. Exactly one evaluation of every step does.
        num_function_evaluations (`int`): Calls of `step` since `set_timesteps`.
        order (`int`): Evaluations per step, as stock pipelines count them. It is 1 if `sigmas` were given, because
            stock pipelines then take the number of timesteps for the number of steps.
    """

    timesteps: torch.Tensor
    sigmas: torch.Tensor
    num_function_evaluations = 0
    _evaluations: tuple[Evaluation, ...] = ()

    @property
    def solution(self) -> torch.Tensor:
        """Point of the sigma grid that was reached last, in float32 or better; the next evaluation may lie beyond."""
        return self._solution

    @staticmethod
    @abstractmethod
    def _plan(grid: list[float], inverse: bool) -> list[Evaluation]:
        """List the evaluations for `grid`, the `num_inference_steps + 1` sigmas in the order of the loop."""

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        sigmas: Sequence[float] | np.ndarray | None = None,
        mu: float | None = None,
        inverse: bool = False,
    ) -> None:
        r"""
        Set the timesteps of a new inversion or denoising loop.

        The stock scheduler's argument `timesteps` is missing, because evaluations also lie between the grid's points.

        Args:
            num_inference_steps (`int`, *optional*): Number of steps. Not needed if `sigmas` are given.
            device (`str` or `torch.device`, *optional*): Device of `timesteps` and `sigmas`.
            sigmas (`Sequence[float]` or `np.ndarray`, *optional*): Falling noise levels before shifting, without the
                final 0.
            mu (`float`, *optional*): Shift for the image's size, needed for dynamic shifting.
            inverse (`bool`, *optional*, defaults to `False`): Go along the same grid from data (sigma 0) to noise.

        Raises:
            ValueError: `num_inference_steps` and `sigmas` are both missing or contradict each other, `mu` is missing,
                the configuration has `shift_terminal` and there is a single step, or it has `stochastic_sampling`,
                which ODE solvers do not support.
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

        # The same values as Python floats, so that step sizes are exact and reading one does not wait for a GPU.
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
        Compute the point of the next evaluation from the velocity at this one, or the result after the last.

        Args:
            model_output (`torch.Tensor` of shape `(batch, ...)`): Velocity at `sample` and `timestep`.
            timestep (`float` or `torch.Tensor`): Entry of `timesteps`. Without `set_begin_index`, the first call looks
                up where in the loop to begin by it.
            sample (`torch.Tensor` of shape `(batch, ...)`): Point of this evaluation.
            generator (`torch.Generator`, *optional*): Unused, because nothing is random; the stock scheduler has it.
            return_dict (`bool`, *optional*, defaults to `True`): Whether to return an output object.

        Returns:
            `FlowMatchEulerDiscreteSchedulerOutput`, or a tuple of one: `prev_sample` with `sample`'s shape and dtype.

        Raises:
            ValueError: `timestep` is an integer, `set_timesteps` was not called, or the loop has ended.
        """
        if isinstance(timestep, int) or (isinstance(timestep, torch.Tensor) and not timestep.is_floating_point()):
            raise ValueError(f"`timestep` must be an entry of `timesteps`, got the integer {timestep}")
        if not self._evaluations:
            raise ValueError("`set_timesteps` must be called before `step`, got no timesteps")
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
            # A loop may begin at any evaluation (image to image), and the sample is the solution there.
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
    Explicit Euler: N evaluations, order 1. Denoising with it equals the stock scheduler bit for bit.

    Each interval is evaluated where the loop enters it: at its noisier end when denoising, else at the other one.
    """

    @staticmethod
    def _plan(grid: list[float], inverse: bool) -> list[Evaluation]:
        return [Evaluation(sigma, interval, True) for interval, sigma in enumerate(grid[:-1])]


class MidpointSolverScheduler(FlowMatchSolverScheduler):
    r"""
    Explicit midpoint rule, and with it RF-Solver: 2N evaluations, order 2.

    RF-Solver (arXiv 2411.04746) takes a second-order Taylor step whose derivative is the difference quotient of the
    velocities at the start, v0, and at the midpoint, vm. The two are the same, because
    x + h v0 + (h² / 2) (vm - v0) / (h / 2) = x + h vm.
    """

    @staticmethod
    def _plan(grid: list[float], inverse: bool) -> list[Evaluation]:
        pairs = zip(grid, _midpoints(grid), strict=False)
        return [e for sigma, middle in pairs for e in (Evaluation(sigma, middle.interval, False), middle)]


class FireFlowSolverScheduler(FlowMatchSolverScheduler):
    """
    FireFlow (arXiv 2412.07517): the midpoint rule, where every step but the first starts with the last midpoint's
    velocity. N + 1 evaluations, order 2.
    """

    @staticmethod
    def _plan(grid: list[float], inverse: bool) -> list[Evaluation]:
        return [Evaluation(grid[0], 0, False), *_midpoints(grid)]


class UniInvSolverScheduler(FlowMatchSolverScheduler):
    """
    Uni-Inv (UniEdit-Flow, arXiv 2504.13109), whose denoising is Euler's: N + 1 evaluations to invert, N to denoise.

    Inversion predicts the next point of the grid with the last velocity, and crosses the interval from its start with
    the velocity there, which is nearly the one that Euler uses on the way back. Order 1 in either direction, order 2
    for the round trip.
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
"""Solvers by name. Use one for both directions: denoising with Euler reduces FireFlow and midpoint to order 1."""
