"""Latents along a rectified flow: inversion to noise levels, and resampling from there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .corruptions import NoiseLevel
from .denoising_loop import DenoisingLoop, LoopObserver, OnStepEnd
from .schedulers import SOLVERS, FlowMatchSolverScheduler


if TYPE_CHECKING:
    # Not `from .x import y`: of a repository on the Hub, diffusers fetches a file once for every such line that leads
    # to it, from each module that leads there.
    from . import family, target_rows

    Conditioning = family.Conditioning
    TargetRows = target_rows.TargetRows
    TransformerFamily = family.TransformerFamily


# The grid is given exactly, so that nothing of a checkpoint's configuration may move it.
_UNSHIFTED = {
    "shift": 1.0,
    "use_dynamic_shifting": False,
    "shift_terminal": None,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}


class FlowPath:
    r"""
    Path between photos and noise along a rectified flow.

    The levels are points of the grid: the inversion goes through all points of the checkpoint's own grid below the
    highest level and through the levels, and a resampling through those below its level.

    Args:
        family (`TransformerFamily`): Adapter of the transformer.
        scheduler (`~diffusers.FlowMatchEulerDiscreteScheduler`): The checkpoint's scheduler.
        solver (`str`): Name of the solver of both directions.
        num_inference_steps (`int`): Number of steps of the whole grid, from sigma 1.
        grid (`tuple[int, int]`): Rows and columns of tokens.
        negative (`Conditioning`, *optional*): One row, the negative prompt; needed for true guidance only.
        interrupted (`Callable`): Called before every evaluation; if it returns `True`, no further one is made.
        observer (`LoopObserver`, *optional*): Notified before every evaluation.
    """

    def __init__(
        self,
        family: TransformerFamily,
        scheduler: Any,
        solver: str,
        num_inference_steps: int,
        grid: tuple[int, int],
        negative: Conditioning | None,
        interrupted: Callable[[], bool],
        observer: LoopObserver | None = None,
    ):
        self.family, self.scheduler, self.solver, self.grid = family, scheduler, solver, grid
        self.loop = DenoisingLoop(family, grid, negative, observer, interrupted)
        stock = SOLVERS[solver].from_config(scheduler.config)
        stock.set_timesteps(**family.timestep_arguments(num_inference_steps, grid[0] * grid[1], scheduler))
        self._sigmas = stock.sigma_grid
        self._levels: list[NoiseLevel] = []

    @property
    def num_function_evaluations(self) -> int:
        """NFE so far: each evaluation counts once for every row of its batch."""
        return self.loop.num_function_evaluations

    def level(self, sigma: float) -> NoiseLevel:
        """Return the level of `sigma`, which any is."""
        return NoiseLevel(1 - sigma, sigma)

    def num_timesteps(self, levels: Sequence[NoiseLevel]) -> int:
        """Return the number of evaluations to invert to all `levels` and to resample from each."""
        inversion = self._solver(levels, max(levels, key=_sigma), inverse=True)
        return len(inversion.timesteps) + sum(len(self._solver(levels, level).timesteps) for level in levels)

    def invert(
        self,
        clean: torch.Tensor,
        conditioning: Conditioning,
        levels: Sequence[NoiseLevel],
        on_step_end: OnStepEnd,
    ) -> dict[NoiseLevel, torch.Tensor]:
        """
        Invert clean latents, once for all levels, with a guidance scale of 1.

        Args:
            clean (`torch.Tensor` of shape `(photos, channels, height, width)`): Latents of photos.
            conditioning (`Conditioning`): Text conditioning of every photo.
            levels (`Sequence[NoiseLevel]`): Results of `level`.
            on_step_end (`Callable`): Called after every evaluation with its timestep and the latents, which it may
                replace.

        Returns:
            `dict[NoiseLevel, torch.Tensor]`: The latents at each level.
        """
        self._levels = list(levels)
        top = max(levels, key=_sigma)
        solver = self._solver(levels, top, inverse=True)
        places = {self._points(levels, top).index(level.sigma): level for level in levels}
        found: dict[NoiseLevel, torch.Tensor] = {}

        def end_step(timestep: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
            evaluation = solver.num_function_evaluations - 1
            edited = self._edited(timestep, tokens, on_step_end)
            level = places.get(solver.step_of_evaluation[evaluation])
            if level is not None and solver.updates_solution[evaluation]:
                # The next evaluation may lie beyond the level, and moves the solution by what was edited here.
                found[level] = self.family.unpack(solver.solution + (edited - tokens), self.grid)
            return edited

        guidance = torch.ones(len(clean), device=clean.device)
        last = self.loop.invert(solver, self.family.pack(clean), conditioning, guidance, end_step)
        # Of an inversion that was interrupted, the levels that it did not reach.
        return {level: found.get(level, self.family.unpack(last, self.grid)) for level in levels}

    def resample(
        self,
        latents: torch.Tensor,
        level: NoiseLevel,
        conditioning: Conditioning,
        guidance_scale: float | torch.Tensor,
        photos: Sequence[int],
        on_step_end: OnStepEnd,
        target_rows: TargetRows | None = None,
    ) -> torch.Tensor:
        """
        Sample clean latents from noisy ones.

        Args:
            latents (`torch.Tensor` of shape `(rows, channels, height, width)`): Latents at `level`.
            level (`NoiseLevel`): One of the levels of the inversion.
            conditioning (`Conditioning`): Text conditioning of every row.
            guidance_scale (`float` or `torch.Tensor` of shape `(rows,)`): Guidance scale, or that of every row.
            photos (`Sequence[int]`): For each row, the index of its photo in the inversion.
            on_step_end (`Callable`): As in `invert`.
            target_rows (`TargetRows`, *optional*): As in [`DenoisingLoop.denoise`].

        Returns:
            `torch.Tensor` of the shape of `latents`.
        """
        guidance = torch.as_tensor(guidance_scale, dtype=torch.float32, device=latents.device).expand(len(latents))
        tokens = self.loop.denoise(
            self._solver(self._levels, level),
            self.family.pack(latents),
            conditioning,
            guidance,
            lambda timestep, point: self._edited(timestep, point, on_step_end),
            target_rows,
        )
        return self.family.unpack(tokens, self.grid)

    def _edited(
        self,
        timestep: torch.Tensor,
        tokens: torch.Tensor,
        on_step_end: OnStepEnd,
    ) -> torch.Tensor:
        return self.family.pack(on_step_end(timestep, self.family.unpack(tokens, self.grid)))

    def _points(self, levels: Sequence[NoiseLevel], start: NoiseLevel) -> list[float]:
        """Return the falling sigmas from `start` to 0."""
        points = {*self._sigmas, *(level.sigma for level in levels)}
        return sorted((sigma for sigma in points if sigma <= start.sigma), reverse=True)

    def _solver(
        self, levels: Sequence[NoiseLevel], start: NoiseLevel, inverse: bool = False
    ) -> FlowMatchSolverScheduler:
        solver = SOLVERS[self.solver].from_config(self.scheduler.config, **_UNSHIFTED)
        points = np.array(self._points(levels, start)[:-1])
        device = self.family.model.device
        solver.set_timesteps(sigmas=points, device=device, inverse=inverse)
        return solver


def _sigma(level: NoiseLevel) -> float:
    return level.sigma
