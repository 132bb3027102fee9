"""
Denoising steps as a policy: each draws its next latents from a Gaussian, whose log-probability training raises or
lowers with the reward.

- [`DDIMPolicy`] is DDIM with noise (DDPO), from the mean and variance of diffusers' own scheduler.
- [`FlowPolicy`] is the stochastic differential equation of a rectified flow with the marginals of its ordinary one
  (Flow-GRPO). `FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)` draws all noise anew in each step, so that
  its next latents hardly depend on the last ones: nothing to take ratios of.

Steps without noise are those of the deterministic solver. Latents stay in float32 between steps; a network sees them
in its own precision.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler


Predict = Callable[[torch.Tensor, int], torch.Tensor]
"""Returns the network's output for latents at a step, guidance included."""


@dataclass(frozen=True, eq=False)
class Transition:
    """
    Distribution of a step's next latents.

    Attributes:
        mean (`torch.Tensor` of shape `(batch, ...)`, `float32`): Their mean.
        std (`float`): Their standard deviation, the same for all elements; 0 for a step without noise.
    """

    mean: torch.Tensor
    std: float

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """Return the next latents that standard normal noise of the mean's shape gives."""
        return self.mean + self.std * noise

    def log_prob(self, latents: torch.Tensor) -> torch.Tensor:
        """
        Compute the log-probability of next latents, as a mean over elements, so that it does not grow with the size of
        an image. Published clip ranges around 1e-4 belong to this mean (DDPO, Flow-GRPO, DanceGRPO).

        Args:
            latents (`torch.Tensor` of shape `(batch, ...)`): Next latents; they get no gradient.

        Returns:
            `torch.Tensor` of shape `(batch,)`, `float32`.
        """
        squared = ((latents.detach() - self.mean) / self.std).square()
        return -0.5 * squared.flatten(1).mean(1) - math.log(self.std) - 0.5 * math.log(2 * math.pi)


class Policy(Protocol):
    """A solver whose steps may be noisy. Step 0 begins with pure noise."""

    @property
    def steps(self) -> int:
        """Return the number of steps."""
        ...

    def std(self, step: int) -> float:
        """Return the standard deviation of the next latents if the step is noisy; 0 for a step that cannot be."""
        ...

    def transition(self, prediction: torch.Tensor, latents: torch.Tensor, step: int, noisy: bool) -> Transition:
        """
        Return the distribution of the next latents.

        Args:
            prediction (`torch.Tensor` of shape `(batch, ...)`): Output of the network.
            latents (`torch.Tensor` of shape `(batch, ...)`): What it was computed of.
            step (`int`): Number of the step, from 0.
            noisy (`bool`): Whether the step draws noise.
        """
        ...


class DDIMPolicy:
    """
    DDIM with noise (DDIM eq. 12, as DDPO draws images).

    Args:
        scheduler (`DDIMScheduler`): Scheduler whose timesteps are set; see [`scheduler_of_policy`].
        eta (`float`, *optional*, defaults to 1.0): Share of the noise of DDPM's steps, in (0, 1].

    Raises:
        ValueError: `eta` is out of range, or the scheduler has no timesteps.
    """

    def __init__(self, scheduler: DDIMScheduler, eta: float = 1.0) -> None:
        # A step without noise has no probability. Above 1, its noise may have more variance than the next latents have
        # in all, and their mean is no number.
        if not 0 < eta <= 1:
            raise ValueError(f"`eta` must lie in (0, 1], a share of the noise of DDPM's steps, got {eta}")
        if scheduler.num_inference_steps is None:
            raise ValueError("`scheduler` must have timesteps, got none; call `set_timesteps` first")
        self.scheduler, self.eta = scheduler, eta

    @property
    def steps(self) -> int:
        return len(self.scheduler.timesteps)

    def std(self, step: int) -> float:
        timestep = int(self.scheduler.timesteps[step])
        before = timestep - self.scheduler.config.num_train_timesteps // self.scheduler.num_inference_steps
        return self.eta * math.sqrt(float(self.scheduler._get_variance(timestep, before)))

    def transition(self, prediction: torch.Tensor, latents: torch.Tensor, step: int, noisy: bool) -> Transition:
        prediction, latents = prediction.float(), latents.float()
        mean = self.scheduler.step(
            prediction,
            int(self.scheduler.timesteps[step]),
            latents,
            eta=self.eta if noisy else 0.0,
            # Its mean: the scheduler adds the noise that it is given.
            variance_noise=torch.zeros_like(latents),
            return_dict=False,
        )[0]
        return Transition(mean, self.std(step) if noisy else 0.0)


class FlowPolicy:
    """
    Stochastic steps of a rectified flow (Flow-GRPO), with noise of a·√(σ / (1 − σ)) at noise level σ.

    For velocities that are exact, mean and variance at each σ are those of the deterministic flow. The step to σ = 0
    cannot be noisy: its noise would stay in the image.

    Args:
        sigmas (`Sequence[float]`): Noise levels of the latents before each step, falling from at most 1, and the last
            one after all steps.
        noise_level (`float`, *optional*, defaults to 0.7): Factor a, above 0.

    Raises:
        ValueError: `noise_level` is not above 0, or noise levels do not fall.
    """

    def __init__(self, sigmas: Sequence[float], noise_level: float = 0.7) -> None:
        if not 0 < noise_level < math.inf:
            raise ValueError(f"`noise_level` must be above 0, as other steps have no probability, got {noise_level}")
        self.sigmas = tuple(map(float, sigmas))
        falls = all(after < before for before, after in zip(self.sigmas, self.sigmas[1:], strict=False))
        if len(self.sigmas) < 2 or not falls or self.sigmas[0] > 1 or self.sigmas[-1] < 0:
            raise ValueError(f"`sigmas` must be two or more that fall within 1 … 0, got {self.sigmas}")
        self.noise_level = noise_level

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    def std(self, step: int) -> float:
        after = self.sigmas[step + 1]
        return self._diffusion(step) * math.sqrt(self.sigmas[step] - after) if after else 0.0

    def transition(self, prediction: torch.Tensor, latents: torch.Tensor, step: int, noisy: bool) -> Transition:
        prediction, latents = prediction.float(), latents.float()
        sigma, change = self.sigmas[step], self.sigmas[step + 1] - self.sigmas[step]
        if not noisy:
            return Transition(latents + change * prediction, 0.0)
        pull = self._diffusion(step) ** 2 / (2 * sigma)
        mean = latents * (1 + pull * change) + prediction * (1 + pull * (1 - sigma)) * change
        return Transition(mean, self.std(step))

    def _diffusion(self, step: int) -> float:
        sigma = self.sigmas[step]
        # At pure noise the factor is infinite; the published code takes the next level's.
        below = 1 - (self.sigmas[step + 1] if sigma == 1 else sigma)
        return self.noise_level * math.sqrt(sigma / below)


def scheduler_of_policy(scheduler: Any) -> Any:
    """
    Return the scheduler whose steps a policy takes.

    Args:
        scheduler: The model's own scheduler.

    Returns:
        That of a rectified flow itself. Of a diffusion model a `DDIMScheduler` with the same noise schedule, which
        clips nothing, as latents have no range, and whose last step can be noisy too.
    """
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        return scheduler
    return DDIMScheduler.from_config(scheduler.config, clip_sample=False, thresholding=False, set_alpha_to_one=False)


@dataclass(frozen=True)
class NoisySteps:
    """
    Which steps are noisy, and so are trained. The others are deterministic, and need no gradient.

    Args:
        steps (`tuple[int, ...]`): Numbers of steps, from 0.
        count (`int`, *optional*): How many of them are drawn for each update. Defaults to all.

    Raises:
        ValueError: There are no steps, or fewer than `count`.
    """

    steps: tuple[int, ...]
    count: int | None = None

    def __post_init__(self) -> None:
        if not self.steps or len(set(self.steps)) != len(self.steps):
            raise ValueError(f"`steps` must be one or more, each once, got {self.steps}")
        if self.count is not None and not 1 <= self.count <= len(self.steps):
            raise ValueError(f"`count` must lie between 1 and {len(self.steps)}, all of the steps, got {self.count}")

    @classmethod
    def of(cls, policy: Policy, steps: Sequence[int] | None = None, count: int | None = None) -> NoisySteps:
        """
        Choose steps of a policy.

        Args:
            policy (`Policy`): The policy.
            steps (`Sequence[int]`, *optional*): Numbers of steps. Defaults to all that can be noisy.
            count (`int`, *optional*): See [`NoisySteps`].

        Raises:
            ValueError: A step does not exist or cannot be noisy.
        """
        able = [step for step in range(policy.steps) if policy.std(step) > 0]
        for step in steps or ():
            if step not in able:
                raise ValueError(f"`steps` must be among {', '.join(map(str, able))}, got {step}")
        return cls(tuple(sorted(steps)) if steps else tuple(able), count)

    def choose(self, seed: int) -> tuple[int, ...]:
        """Return the noisy steps of an update, in order."""
        if self.count is None:
            return self.steps
        return tuple(sorted(random.Random(seed).sample(self.steps, self.count)))


@dataclass(frozen=True, eq=False)
class NoisyStep:
    """
    A noisy step that was taken.

    Attributes:
        step (`int`): Its number.
        before, after (`torch.Tensor` of shape `(batch, ...)`, `float32`): Latents before and after it.
        log_prob (`torch.Tensor` of shape `(batch,)`, `float32`): See [`Transition.log_prob`].
    """

    step: int
    before: torch.Tensor
    after: torch.Tensor
    log_prob: torch.Tensor


@dataclass(frozen=True, eq=False)
class Trajectory:
    """
    The way from noise to images.

    Attributes:
        noisy (`tuple[NoisyStep, ...]`): Its noisy steps, in order.
        latents (`torch.Tensor` of shape `(batch, ...)`, `float32`): Where it ends.
    """

    noisy: tuple[NoisyStep, ...]
    latents: torch.Tensor


@torch.no_grad()
def walk(
    policy: Policy,
    predict: Predict,
    latents: torch.Tensor,
    noisy_steps: Sequence[int],
    generators: Sequence[torch.Generator],
) -> Trajectory:
    """
    Take all steps.

    Args:
        policy (`Policy`): The policy.
        predict (`Callable`): See [`Predict`].
        latents (`torch.Tensor` of shape `(batch, ...)`): Standard normal noise.
        noisy_steps (`Sequence[int]`): Numbers of the steps that draw noise.
        generators (`Sequence[torch.Generator]`): A generator on the CPU for each image, so that an image does not
            depend on the others of its batch, up to rounding.
    """
    latents, noisy = latents.float(), []
    for step in range(policy.steps):
        is_noisy = step in noisy_steps
        transition = policy.transition(predict(latents, step), latents, step, is_noisy)
        if not is_noisy:
            latents = transition.mean
            continue
        drawn = [torch.randn(latents.shape[1:], generator=generator) for generator in generators]
        after = transition.sample(torch.stack(drawn).to(latents.device))
        noisy.append(NoisyStep(step, latents, after, transition.log_prob(after)))
        latents = after
    return Trajectory(tuple(noisy), latents)
