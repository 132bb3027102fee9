"""Latents along DDIM: inversion with ReNoise to noise levels, and resampling from there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from diffusers import DDIMScheduler

from .corruptions import NoiseLevel
from .renoise import ReNoise, renoise_step


if TYPE_CHECKING:
    # Not `from .x import y`: of a repository on the Hub, diffusers fetches a file once for every such line that leads
    # to it, from each module that leads there.
    from . import denoising_loop, family, family_unet

    OnStepEnd = denoising_loop.OnStepEnd
    Conditioning = family.Conditioning
    UNetFamily = family_unet.UNetFamily


class DDIMPath:
    r"""
    Path between photos and noise along DDIM (arXiv 2010.02502) without added noise.

    Args:
        family (`UNetFamily`): Adapter of the U-Net.
        scheduler (`~diffusers.SchedulerMixin`): The checkpoint's scheduler, of any class; its configuration sets the
            schedule, the spacing of timesteps and the prediction type.
        num_inference_steps (`int`): Number of steps of the whole schedule.
        renoise (`ReNoise`): Settings of the inversion.
        negative (`Conditioning`, *optional*): One row, the negative prompt; needed where the guidance scale is not 1.
        interrupted (`Callable`): Called before every step; if it returns `True`, no further step is taken.

    Attributes:
        levels (`list[NoiseLevel]`): Level after each number of inverted steps, from 0 steps.
        num_function_evaluations (`int`): NFE so far: each evaluation counts once for every row of its batch.
    """

    def __init__(
        self,
        family: UNetFamily,
        scheduler: Any,
        num_inference_steps: int,
        renoise: ReNoise,
        negative: Conditioning | None,
        interrupted: Callable[[], bool],
    ):
        self.family, self.renoise, self.negative, self.interrupted = family, renoise, negative, interrupted
        # Clipping would cut off latents, which are of unit variance. At the end of the schedule the authors of Stable
        # Diffusion use its first alpha, whatever sampler a checkpoint names.
        ddim = DDIMScheduler.from_config(
            scheduler.config, clip_sample=False, thresholding=False, set_alpha_to_one=False
        )
        ddim.set_timesteps(num_inference_steps)
        self.timesteps: list[int] = ddim.timesteps.flip(0).tolist()
        before = self.timesteps[0] - ddim.config.num_train_timesteps // num_inference_steps
        alphas = ddim.alphas_cumprod.double()
        first = alphas[before] if before >= 0 else ddim.final_alpha_cumprod.double()
        self._alphas: list[float] = [float(first), *alphas[self.timesteps].tolist()]
        self.levels = [NoiseLevel(alpha**0.5, (1 - alpha) ** 0.5) for alpha in self._alphas]
        # A schedule that begins at timestep 0 has its first level twice, of which a step leads to the second only.
        self._steps = {level: steps for steps, level in enumerate(self.levels)}
        self._corrections: dict[int, torch.Tensor] = {}
        self.num_function_evaluations = 0

    def level(self, sigma: float) -> NoiseLevel:
        """
        Return the level of the schedule that is nearest to a rectified flow's `sigma`, among those one step or more
        away. Pure noise, with which some schedules end, is none: a step from there divides by its signal.

        Raises:
            ValueError: The schedule's only step leads to pure noise.
        """
        reached = [level for level in self.levels[1:] if level.signal > 0]
        if not reached:
            raise ValueError(
                "`num_inference_steps` must be at least 2 for a schedule that ends with pure noise, got "
                f"{len(self.timesteps)}"
            )
        return min(reached, key=lambda level: abs(level.sigma - sigma))

    def num_timesteps(self, levels: Sequence[NoiseLevel]) -> int:
        """Return the number of steps to invert to all `levels` and to resample from each."""
        steps = [self._steps[level] for level in levels]
        return max(steps) + sum(steps)

    def invert(
        self,
        clean: torch.Tensor,
        conditioning: Conditioning,
        levels: Sequence[NoiseLevel],
        on_step_end: OnStepEnd,
    ) -> dict[NoiseLevel, torch.Tensor]:
        """
        Invert clean latents, once for all levels, without guidance.

        Args:
            clean (`torch.Tensor` of shape `(photos, channels, height, width)`): Latents of photos.
            conditioning (`Conditioning`): Text conditioning of every photo.
            levels (`Sequence[NoiseLevel]`): Entries of `levels`.
            on_step_end (`Callable`): Called after every step with its timestep and the latents, which it may replace.

        Returns:
            `dict[NoiseLevel, torch.Tensor]`: The latents at each level.
        """
        noise = torch.randn(clean.shape[1:], generator=torch.Generator().manual_seed(self.renoise.seed)).to(clean)
        found, latents = {}, clean
        for step in range(max(self._steps[level] for level in levels)):
            if not self.interrupted():
                latents = self._invert_step(latents, step, conditioning, clean, noise)
                latents = on_step_end(torch.tensor(self.timesteps[step]), latents)
            found[self.levels[step + 1]] = latents
        return {level: found[level] for level in levels}

    def resample(
        self,
        latents: torch.Tensor,
        level: NoiseLevel,
        conditioning: Conditioning,
        guidance_scale: float,
        photos: Sequence[int],
        on_step_end: OnStepEnd,
    ) -> torch.Tensor:
        """
        Sample clean latents from noisy ones.

        Args:
            latents (`torch.Tensor` of shape `(rows, channels, height, width)`): Latents at `level`.
            level (`NoiseLevel`): Entry of `levels`.
            conditioning (`Conditioning`): Text conditioning of every row.
            guidance_scale (`float`): Scale of classifier-free guidance.
            photos (`Sequence[int]`): For each row, the index of its photo in the inversion.
            on_step_end (`Callable`): As in `invert`.

        Returns:
            `torch.Tensor` of the shape of `latents`.
        """
        for step in reversed(range(self._steps[level])):
            if self.interrupted():
                break
            noise = self._noise(latents, self.levels[step + 1], step, conditioning, guidance_scale)
            latents = self._move(latents, step + 1, step, noise)
            if step in self._corrections:
                latents = latents + self._corrections[step][list(photos)]
            latents = on_step_end(torch.tensor(self.timesteps[step]), latents)
        return latents

    def _invert_step(
        self, start: torch.Tensor, step: int, conditioning: Conditioning, clean: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        level = self.levels[step + 1]

        def predict(latents: torch.Tensor) -> torch.Tensor:
            # The first prediction is made at `start`, which is less noisy than the others.
            own = self.levels[step] if latents is start else level
            return self._noise(latents, own, step, conditioning)

        found = renoise_step(
            start,
            self.timesteps[step],
            self.renoise,
            predict=predict,
            step=lambda predicted: self._move(start, step, step + 1, predicted),
            fresh=level.signal * clean + level.noise * noise,
        )
        if self.renoise.noise_correction:
            sampled = self._move(found, step + 1, step, self._noise(found, level, step, conditioning))
            self._corrections[step] = start - sampled
        return found

    def _move(self, latents: torch.Tensor, start: int, end: int, noise: torch.Tensor) -> torch.Tensor:
        """Move latents between the levels of two numbers of inverted steps, along predicted noise (DDIM, eq. 12)."""
        scale = (self._alphas[end] / self._alphas[start]) ** 0.5
        return scale * latents + (self.levels[end].noise - scale * self.levels[start].noise) * noise

    def _noise(
        self,
        latents: torch.Tensor,
        level: NoiseLevel,
        step: int,
        conditioning: Conditioning,
        guidance_scale: float = 1.0,
    ) -> torch.Tensor:
        """Predict the noise of latents of a level, by the U-Net at the timestep of inversion step `step`."""
        output = self._output(latents, step, conditioning)
        if guidance_scale != 1 and self.negative is not None:
            unconditional = self._output(latents, step, self.negative.expand(len(latents)))
            output = self.family.guide(output, unconditional, output.new_tensor(guidance_scale))
        if self.family.prediction_type == "epsilon":
            return output
        return level.signal * output + level.noise * latents

    def _output(self, latents: torch.Tensor, step: int, conditioning: Conditioning) -> torch.Tensor:
        self.num_function_evaluations += len(latents)
        return self.family.output(latents, self.timesteps[step], conditioning)
