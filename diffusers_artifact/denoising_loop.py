"""Inversion and denoising loop: move images along a model's flow to noise and back, with guidance."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch


if TYPE_CHECKING:
    # Not `from .x import y`: of a repository on the Hub, diffusers fetches a file once for every such line that leads
    # to it, from each module that leads there.
    from . import family, schedulers, target_rows

    Conditioning = family.Conditioning
    TransformerFamily = family.TransformerFamily
    FlowMatchSolverScheduler = schedulers.FlowMatchSolverScheduler
    TargetRows = target_rows.TargetRows


OnStepEnd = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Takes the timestep and the next point, in rows, and returns the point to continue from."""


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

    def begin_denoising(self, step: int, branch: str, updates: bool) -> None:
        """Prepare for an evaluation of denoising step `step`, 0-based; see `begin_inversion`."""

    def begin_targets(self) -> None:
        """Prepare for the second pass of an evaluation, that of the rows of targets; see [`TargetRows`]."""

    def end(self) -> None:
        """Clean up after the last evaluation."""


@dataclass(frozen=True)
class Pass:
    """
    Rows that go through the transformer together, with a solver of their own, because solvers keep state.

    Attributes:
        scheduler (`FlowMatchSolverScheduler`): Their solver.
        conditioning (`Conditioning`): Text conditioning of every row.
        negative (`Conditioning`, *optional*): One row, the negative prompt, if it is needed.
        guidance (`torch.Tensor` of shape `(rows,)`): Guidance scale of every row.
        num_images (`int`): Number of images that they belong to, which NFE counts.
    """

    scheduler: FlowMatchSolverScheduler
    conditioning: Conditioning
    negative: Conditioning | None
    guidance: torch.Tensor
    num_images: int


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
        num_function_evaluations (`int`): NFE so far: each evaluation counts once for every image of its batch.
        token_evaluations (`float`): Tokens that went through the transformer so far, text aside and padding included,
            divided by the tokens of an image.
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
        self.token_evaluations = 0.0

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
        rows = Pass(scheduler, conditioning, self._needed_negative(guidance), guidance, len(clean))
        return self._run([rows], clean, on_step_end, None, inverting=True)

    def denoise(
        self,
        scheduler: FlowMatchSolverScheduler,
        noise: torch.Tensor,
        conditioning: Conditioning,
        guidance: torch.Tensor,
        on_step_end: OnStepEnd,
        target_rows: TargetRows | None = None,
    ) -> torch.Tensor:
        r"""
        Denoise noise to clean tokens.

        Args:
            scheduler (`FlowMatchSolverScheduler`): Solver, with its timesteps set.
            noise (`torch.Tensor` of shape `(rows, tokens, channels)`): Packed latents to start from.
            conditioning (`Conditioning`): Text conditioning of every row.
            guidance (`torch.Tensor` of shape `(rows,)`): Guidance scale of every row.
            on_step_end (`Callable`): Called after every evaluation; see [`OnStepEnd`].
            target_rows (`TargetRows`, *optional*): Compute artifact variants at their targets alone, in a second pass
                of every evaluation. All their other tokens are their clean row's.

        Returns:
            `torch.Tensor` of the shape of `noise`.
        """
        negative = self._needed_negative(guidance)
        passes = [Pass(scheduler, conditioning, negative, guidance, len(noise))]
        if target_rows is not None:
            whole = slice(target_rows.num_clean)
            passes = [Pass(scheduler, conditioning.select(whole), negative, guidance[whole], target_rows.num_clean)]
            if len(target_rows):
                # The variants of a row have one photo, so its first speaks for all. Their text is the clean row's.
                first = target_rows.num_clean + target_rows.variants[:, 0]
                texts, none = conditioning.select(first).without_text(), negative and negative.without_text()
                passes.append(Pass(copy.deepcopy(scheduler), texts, none, guidance[first], len(target_rows)))
        return self._run(passes, noise, on_step_end, target_rows, inverting=False)

    def _needed_negative(self, guidance: torch.Tensor) -> Conditioning | None:
        return self.negative if self.family.needs_negative(guidance) else None

    def _run(
        self,
        passes: list[Pass],
        sample: torch.Tensor,
        on_step_end: OnStepEnd,
        target_rows: TargetRows | None,
        inverting: bool,
    ) -> torch.Tensor:
        def evaluate(branch: str) -> list[torch.Tensor]:
            if self.observer is not None and inverting:
                self.observer.begin_inversion(step, branch, updates)
            elif self.observer is not None:
                self.observer.begin_denoising(step, branch, updates)
            velocities: list[torch.Tensor] = []
            for tokens, rows in zip(parts, passes, strict=True):
                if velocities and self.observer is not None:
                    self.observer.begin_targets()
                self.num_function_evaluations += rows.num_images
                self.token_evaluations += tokens.shape[0] * tokens.shape[1] / (self.grid[0] * self.grid[1])
                condition = rows.conditioning
                if branch == "uncond" and rows.negative is not None:
                    condition = rows.negative.expand(len(tokens))
                velocities.append(self.family.velocity(tokens, timestep, condition, rows.guidance, self.grid).float())
            return velocities

        scheduler = passes[0].scheduler
        for texts in (passes[0].conditioning, self.negative):
            if texts is not None and self.observer is not None:
                self.observer.prepare(texts.prompt_embeds.shape[1])
        for index, timestep in enumerate(scheduler.timesteps):
            if self.interrupted():
                break
            step, updates = scheduler.step_of_evaluation[index], scheduler.updates_solution[index]
            parts = [sample] if target_rows is None else list(target_rows.split(sample))[: len(passes)]
            velocities = evaluate("cond")
            if passes[0].negative is not None:
                velocities = [
                    self.family.guide(velocity, unconditional, rows.guidance[:, None, None])
                    for velocity, unconditional, rows in zip(velocities, evaluate("uncond"), passes, strict=True)
                ]
            points = [
                rows.scheduler.step(velocity, timestep, tokens, return_dict=False)[0]
                for velocity, tokens, rows in zip(velocities, parts, passes, strict=True)
            ]
            sample = on_step_end(timestep, points[0] if target_rows is None else target_rows.join(*points))
        if self.observer is not None:
            self.observer.end()
        return sample
