"""
Levels to which photos are inverted for a corruption, and their defaults for each model.

A level is a rectified flow's sigma, `noise / (signal + noise)`, for every family. A DDIM schedule with the amplitudes
`signal = sqrt(abar)` and `noise = sqrt(1 - abar)` has the level of equal signal-to-noise ratio. Artifact corruption
(Menn et al., §4.3) names levels by steps of DDIM with 50 steps on Stable Diffusion's schedule:

| step of 50 | inverted steps | noise | sigma |
|---|---|---|---|
| 45 | 5 | .288 | .231 |
| 40 | 10 | .466 | .345 |
| 35 | 15 | .615 | .438 |
| 30 | 20 | .738 | .522 |

This module imports neither torch nor diffusers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .choices import CORRUPTION_NAMES


NUM_STEPS = 50
"""Number of DDIM steps that levels are named by (Menn et al., §4.3)."""

_NUM_TRAIN_TIMESTEPS, _BETA_START, _BETA_END, _STEPS_OFFSET = 1000, 0.00085, 0.012, 1


def sigma_of_step(step: int) -> float:
    """
    Return the level of a step of DDIM with 50 steps on Stable Diffusion's schedule.

    Args:
        step (`int`): From 0, all noise, to 49, one step before the image. The photo is inverted by `50 - step` steps.

    Returns:
        `float`: Sigma of equal signal-to-noise ratio, in (0, 1).

    Raises:
        ValueError: `step` is not an integer from 0 to 49.

    Example:

        >>> round(sigma_of_step(40), 3)
        0.345
    """
    if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < NUM_STEPS:
        raise ValueError(f"`step` must be an integer from 0 to {NUM_STEPS - 1}, got {step!r}")
    timestep = (NUM_STEPS - step - 1) * (_NUM_TRAIN_TIMESTEPS // NUM_STEPS) + _STEPS_OFFSET
    betas = np.linspace(_BETA_START**0.5, _BETA_END**0.5, _NUM_TRAIN_TIMESTEPS) ** 2
    return sigma_of_alpha(float(np.prod(1 - betas[: timestep + 1])))


def sigma_of_alpha(alpha_cumprod: float) -> float:
    """Return the level of equal signal-to-noise ratio of a variance-preserving schedule's `abar`, in [0, 1]."""
    signal, noise = alpha_cumprod**0.5, (1 - alpha_cumprod) ** 0.5
    return float(noise / (signal + noise))


@dataclass(frozen=True)
class CorruptionPreset:
    """
    What a corruption does on a model where the caller names nothing else.

    Attributes:
        num_inference_steps (`int`): Steps of the whole schedule, of which those below the level are run.
        sigma (`float`): Level of the method `"proposed"`.
        sigma_of_others (`float`): Level of the other methods.
    """

    num_inference_steps: int
    sigma: float
    sigma_of_others: float

    def level(self, method: str) -> float:
        """Return the level of a method of `CORRUPTION_NAMES`."""
        return self.sigma if method == CORRUPTION_NAMES[0] else self.sigma_of_others


# The published levels are those of Menn et al., §4.3 and §5.3. On the embedded model they change little that one can
# see; tests/benchmarks/README.md has its figures at each level.
CORRUPTION_PRESETS = {
    "published": CorruptionPreset(NUM_STEPS, sigma_of_step(40), sigma_of_step(30)),
    "embedded": CorruptionPreset(12, 0.7, 0.7),
}
"""Presets by name: `"embedded"` for the package's default model, `"published"` for all others."""
