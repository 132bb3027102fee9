"""Walks photographs along a model's flow, to noise and back, with guidance and injection."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .family import Conditioning, TransformerFamily
from .injection import InjectionState
from .schedulers import FlowMatchSolverScheduler


OnStepEnd = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Takes the timestep and the next point `(rows, tokens, channels)`, gives the point to go on from."""


class Walk:
    r"""
    Evaluates the transformer at the points that a solver asks for.

    Args:
        family (`TransformerFamily`): Adapter of the transformer.
        state (`InjectionState`): What is injected, and what the injecting processors read.
        grid (`tuple[int, int]`): Rows and columns of tokens.
        negative (`Conditioning`, *optional*): One row, the negative prompt; needed for true guidance alone.
        interrupted (`Callable`): Says, before every evaluation, whether to skip it.

    Attributes:
        num_function_evaluations (`int`): Evaluations so far, each counted once for every row of its batch.
    """

    def __init__(
        self,
        family: TransformerFamily,
        state: InjectionState,
        grid: tuple[int, int],
        negative: Conditioning | None = None,
        interrupted: Callable[[], bool] = lambda: False,
    ):
        self.family, self.state, self.grid, self.negative = family, state, grid, negative
        self.interrupted = interrupted
        self.num_function_evaluations = 0

    def invert(
        self,
        scheduler: FlowMatchSolverScheduler,
        clean: torch.Tensor,
        conditioning: Conditioning,
        guidance: torch.Tensor,
        on_step_end: OnStepEnd,
    ) -> torch.Tensor:
        """Takes clean tokens to noise; arguments as of `denoise`, with a scheduler laid out in inverse."""
        return self._walk(scheduler, clean, conditioning, guidance, on_step_end, inverting=True)

    def denoise(
        self,
        scheduler: FlowMatchSolverScheduler,
        noise: torch.Tensor,
        conditioning: Conditioning,
        guidance: torch.Tensor,
        on_step_end: OnStepEnd,
    ) -> torch.Tensor:
        r"""
        Takes noise to clean tokens, injecting on the way.

        Args:
            scheduler (`FlowMatchSolverScheduler`): With its timesteps set.
            noise (`torch.Tensor` of shape `(rows, tokens, channels)`): Where to start.
            conditioning (`Conditioning`): Of every row.
            guidance (`torch.Tensor` of shape `(rows,)`): Guidance scale of every row.
            on_step_end (`Callable`): Called after every evaluation; see `OnStepEnd`.

        Returns:
            `torch.Tensor` of the shape of `noise`.
        """
        return self._walk(scheduler, noise, conditioning, guidance, on_step_end, inverting=False)

    def _walk(
        self,
        scheduler: FlowMatchSolverScheduler,
        sample: torch.Tensor,
        conditioning: Conditioning,
        guidance: torch.Tensor,
        on_step_end: OnStepEnd,
        inverting: bool,
    ) -> torch.Tensor:
        negative = self.negative if self.family.needs_negative(guidance) else None

        def evaluate(branch: str, condition: Conditioning) -> torch.Tensor:
            if inverting:
                self.state.begin_inversion(step, branch, updates)
            else:
                self.state.begin_denoising(step, branch)
            self.num_function_evaluations += len(sample)
            return self.family.velocity(sample, timestep, condition, guidance, self.grid).float()

        for texts in (conditioning, self.negative):
            if texts is not None:
                self.state.prepare(texts.prompt_embeds.shape[1])
        for index, timestep in enumerate(scheduler.timesteps):
            if self.interrupted():
                break
            step, updates = scheduler.step_of_evaluation[index], scheduler.updates_solution[index]
            velocity = evaluate("cond", conditioning)
            if negative is not None:
                unconditional = evaluate("uncond", negative.expand(len(sample)))
                velocity = self.family.guide(velocity, unconditional, guidance[:, None, None])
            sample = on_step_end(timestep, scheduler.step(velocity, timestep, sample, return_dict=False)[0])
        self.state.end()
        return sample
