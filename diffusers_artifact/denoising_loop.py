"""Inversion and denoising loop: move images along a model's flow to noise and back, with guidance."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import torch


if TYPE_CHECKING:
    # Not `from .x import y`: of a repository on the Hub, diffusers fetches a file once for every such line that leads
    # to it, from each module that leads there.
    from . import family, schedulers

    Conditioning = family.Conditioning
    TransformerFamily = family.TransformerFamily
    FlowMatchSolverScheduler = schedulers.FlowMatchSolverScheduler


OnStepEnd = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Takes the timestep and the next point `(rows, tokens, channels)`, and returns the point to continue from."""


class LoopObserver(Protocol):
    """
    Observer that a loop notifies before each evaluation of the transformer, such as an [`InjectionState`], which
    decides what the attention processors inject.
    """

    def prepare(self, text_length: int) -> None:
        """Prepare, before the first evaluation, for sequences with `text_length` text tokens."""

    def begin_inversion(self, step: int, branch: str, updates: bool) -> None:
        """
        Prepare for an evaluation of the inversion.

        Args:
            step (`int`): Denoising step whose interval of the sigma grid the evaluation belongs to, 0-based.
            branch (`str`): Guidance branch, `"cond"` or `"uncond"`.
            updates (`bool`): Whether its velocity moves the solution across the interval.
        """

    def begin_denoising(self, step: int, branch: str) -> None:
        """Prepare for an evaluation of denoising step `step`, 0-based; see `begin_inversion`."""

    def end(self) -> None:
        """Clean up after the last evaluation."""


class DenoisingLoop:
    r"""
    Loop that evaluates the transformer at the points of a solver.

    Args:
        family (`TransformerFamily`): Adapter of the transformer.
        grid (`tuple[int, int]`): Rows and columns of tokens.
        negative (`Conditioning`, *optional*): One row, the negative prompt; needed for true guidance only.
        observer (`LoopObserver`, *optional*): Notified before every evaluation.
        interrupted (`Callable`, *optional*): Called before every evaluation; if it returns `True`, the loop ends.

    Attributes:
        num_function_evaluations (`int`): NFE so far: each evaluation counts once for every row of its batch.
    """

    def __init__(
        self,
        family: TransformerFamily,
        grid: tuple[int, int],
        negative: Conditioning | None = None,
        observer: LoopObserver | None = None,
        interrupted: Callable[[], bool] = lambda: False,
    ):
        self.family, self.grid, self.negative = family, grid, negative
        self.observer, self.interrupted = observer, interrupted
        self.num_function_evaluations = 0

    def invert(
        self,
        scheduler: FlowMatchSolverScheduler,
        clean: torch.Tensor,
        conditioning: Conditioning,
        guidance: torch.Tensor,
        on_step_end: OnStepEnd,
    ) -> torch.Tensor:
        """
        Invert clean tokens to noise.

        Args:
            scheduler (`FlowMatchSolverScheduler`): Solver, with its timesteps set with `inverse=True`.
            clean (`torch.Tensor` of shape `(rows, tokens, channels)`): Packed latents to invert.
            conditioning (`Conditioning`): Text conditioning of every row.
            guidance (`torch.Tensor` of shape `(rows,)`): Guidance scale of every row.
            on_step_end (`Callable`): Called after every evaluation; see [`OnStepEnd`].

        Returns:
            `torch.Tensor` of the shape of `clean`.
        """
        return self._run(scheduler, clean, conditioning, guidance, on_step_end, inverting=True)

    def denoise(
        self,
        scheduler: FlowMatchSolverScheduler,
        noise: torch.Tensor,
        conditioning: Conditioning,
        guidance: torch.Tensor,
        on_step_end: OnStepEnd,
    ) -> torch.Tensor:
        r"""
        Denoise noise to clean tokens.

        Args:
            scheduler (`FlowMatchSolverScheduler`): Solver, with its timesteps set.
            noise (`torch.Tensor` of shape `(rows, tokens, channels)`): Packed latents to start from.
            conditioning (`Conditioning`): Text conditioning of every row.
            guidance (`torch.Tensor` of shape `(rows,)`): Guidance scale of every row.
            on_step_end (`Callable`): Called after every evaluation; see [`OnStepEnd`].

        Returns:
            `torch.Tensor` of the shape of `noise`.
        """
        return self._run(scheduler, noise, conditioning, guidance, on_step_end, inverting=False)

    def _run(
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
            if self.observer is not None and inverting:
                self.observer.begin_inversion(step, branch, updates)
            elif self.observer is not None:
                self.observer.begin_denoising(step, branch)
            self.num_function_evaluations += len(sample)
            return self.family.velocity(sample, timestep, condition, guidance, self.grid).float()

        for texts in (conditioning, self.negative):
            if texts is not None and self.observer is not None:
                self.observer.prepare(texts.prompt_embeds.shape[1])
        for index, timestep in enumerate(scheduler.timesteps):
            if self.interrupted():
                break
            step, updates = scheduler.step_of_evaluation[index], scheduler.updates_solution[index]
            velocity = evaluate("cond", conditioning)
            if negative is not None:
                unconditional = evaluate("uncond", negative.expand(len(sample)))
                velocity = self.family.guide(velocity, unconditional, guidance[:, None, None])
            sample = on_step_end(timestep, scheduler.step(velocity, timestep, sample, return_dict=False)[0])
        if self.observer is not None:
            self.observer.end()
        return sample
