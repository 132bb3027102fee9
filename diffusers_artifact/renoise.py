"""ReNoise (arXiv 2403.14602): inversion steps of DDIM as fixed points, found by iterated noising."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


PATCH_SIDE = 4
"""Side, in latent pixels, of the patches whose statistics the regularisation compares."""

_LEAST_VARIANCE = 1e-6
_GREATEST_GRADIENT = 100.0
_COARSEST_SIDE = 8


@dataclass(frozen=True)
class ReNoise:
    r"""
    Settings of ReNoise. The defaults are those that its authors published for SDXL-Turbo; their example for Stable
    Diffusion 1.5 with DDIM is `ReNoise(iterations=1, noise_correction=False)`.

    A step of DDIM from `z_t` to `z_{t-1}` uses the noise predicted at `z_t`, which the inversion is looking for. It
    begins with the noise predicted at `z_{t-1}` instead, which is the stock inversion, and repeats: predict the noise
    at the `z_t` found last, and step again from `z_{t-1}` with it.

    Args:
        iterations (`int`, *optional*, defaults to 9): Repetitions, from 0, which is the stock inversion of models that
            predict noise; where v is predicted, the stock one turns it into noise at the level that it comes from, and
            this one at the level that it goes to. An inversion step evaluates the model once more often.
        early_iterations (`int`, *optional*, defaults to 5): The most repetitions at timesteps below `early_timesteps`.
        early_timesteps (`int`, *optional*, defaults to 250): Where that ends.
        average (`tuple[int, int]`, *optional*, defaults to `(8, 10)`): First evaluation whose noise is averaged, and
            the first after it that is not, counted from 0. The step is taken with the average. `None`, or if the
            repetitions end before: with the last evaluation.
        early_average (`tuple[int, int]`, *optional*, defaults to `(0, 5)`): The same below `early_timesteps`.
        regularization_steps (`int`, *optional*, defaults to 4): Gradient steps that make predicted noise more like the
            noise predicted for a freshly noised image, and less correlated. They are taken from the first averaged
            evaluation on, and for the average. 0: none, and one evaluation of a step less.
        lambda_kl (`float`, *optional*, defaults to 0.065): Step size on the divergence from such noise, in patches.
        lambda_ac (`float`, *optional*, defaults to 20.0): Step size on the correlations of pairs of pixels.
        noise_correction (`bool`, *optional*, defaults to `True`): Keep for each step by how much the sampling misses
            the point that the inversion came from, and add it when resampling (rho_t eps_t of Menn et al., eq. 6). The
            clean image is then resampled exactly. One evaluation of a step more.
        seed (`int`, *optional*, defaults to 0): Seed of the freshly noised image.

    Raises:
        ValueError: A number is negative, or a range is empty.
    """

    iterations: int = 9
    early_iterations: int = 5
    early_timesteps: int = 250
    average: tuple[int, int] | None = (8, 10)
    early_average: tuple[int, int] | None = (0, 5)
    regularization_steps: int = 4
    lambda_kl: float = 0.065
    lambda_ac: float = 20.0
    noise_correction: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("iterations", "early_iterations", "early_timesteps", "regularization_steps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"`{name}` must be an integer of at least 0, got {value!r}")
        for name in ("lambda_kl", "lambda_ac"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"`{name}` must be at least 0, got {getattr(self, name)}")
        for name in ("average", "early_average"):
            bounds = getattr(self, name)
            if bounds is not None and not (len(bounds) == 2 and 0 <= bounds[0] < bounds[1]):
                raise ValueError(f"`{name}` must be None or two rising numbers from 0, got {bounds!r}")

    @classmethod
    def fixed_point(cls, iterations: int) -> ReNoise:
        """Return settings of `iterations` repetitions at all timesteps and nothing else."""
        return cls(
            iterations, iterations, average=None, early_average=None, regularization_steps=0, noise_correction=False
        )

    def num_iterations(self, timestep: int) -> int:
        """Return the number of repetitions at a timestep."""
        return min(self.iterations, self.early_iterations) if timestep < self.early_timesteps else self.iterations

    def averaged(self, timestep: int) -> range:
        """Return the evaluations at a timestep whose noise is averaged."""
        bounds = self.early_average if timestep < self.early_timesteps else self.average
        evaluations = range(self.num_iterations(timestep) + 1)
        return evaluations[0:0] if bounds is None else evaluations[slice(*bounds)]


def renoise_step(
    start: torch.Tensor,
    timestep: int,
    settings: ReNoise,
    predict: Callable[[torch.Tensor], torch.Tensor],
    step: Callable[[torch.Tensor], torch.Tensor],
    fresh: torch.Tensor,
) -> torch.Tensor:
    r"""
    Take one step of the inversion.

    Args:
        start (`torch.Tensor` of shape `(rows, channels, height, width)`): The less noisy point, `z_{t-1}`.
        timestep (`int`): Timestep of the result.
        settings (`ReNoise`): How it is searched.
        predict (`Callable`): Predicts the noise of a point at `timestep`; first of `start` itself.
        step (`Callable`): Moves `start` to `timestep` with given noise.
        fresh (`torch.Tensor` of the shape of `start`): The clean latents, freshly noised to `timestep`.

    Returns:
        `torch.Tensor` of the shape of `start`: The noisier point, `z_t`.
    """
    reference = predict(fresh) if settings.regularization_steps else None
    averaged = settings.averaged(timestep)
    # Without an average, all but the first evaluation are regularised, which is at the wrong point anyway.
    first_regularized = averaged.start if averaged else 1
    point, mean = start, torch.zeros_like(start)
    for index in range(settings.num_iterations(timestep) + 1):
        noise = predict(point)
        if index in averaged:
            mean = mean + noise / len(averaged)
        if reference is not None and index >= first_regularized:
            noise = regularize(noise, reference, settings)
        point = step(noise)
    if not averaged:
        return point
    return step(mean if reference is None else regularize(mean, reference, settings))


def regularize(noise: torch.Tensor, reference: torch.Tensor, settings: ReNoise) -> torch.Tensor:
    """
    Make predicted noise more like that of a freshly noised image, by gradient steps (ReNoise §3.3).

    Args:
        noise (`torch.Tensor` of shape `(rows, channels, height, width)`): Predicted noise.
        reference (`torch.Tensor` of the shape of `noise`): Noise predicted for freshly noised images.
        settings (`ReNoise`): Number and size of the steps.

    Returns:
        `torch.Tensor` of the shape of `noise`.
    """
    for _ in range(settings.regularization_steps):
        gradient = _gradient(lambda values: patch_divergence(values, reference), noise)
        noise = noise - settings.lambda_kl * gradient.clamp(-_GREATEST_GRADIENT, _GREATEST_GRADIENT)
        noise = noise - settings.lambda_ac * _gradient(pair_correlation, noise)
    return noise


def patch_divergence(noise: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """
    Compute the divergence of Gaussians with the mean and variance of each channel of each 4×4 patch, summed.

    Args:
        noise, reference (`torch.Tensor` of shape `(rows, channels, height, width)`): Noise to compare. What exceeds
            whole patches is left out.

    Returns:
        `torch.Tensor`: Twice the sum of the Kullback-Leibler divergences, a scalar.
    """

    def statistics(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        patches = values.unfold(2, PATCH_SIDE, PATCH_SIDE).unfold(3, PATCH_SIDE, PATCH_SIDE).flatten(4)
        return patches.mean(-1), patches.var(-1) + _LEAST_VARIANCE

    (mean, variance), (reference_mean, reference_variance) = statistics(noise), statistics(reference)
    ratio = variance / reference_variance
    return (ratio - ratio.log() - 1 + (mean - reference_mean) ** 2 / reference_variance).sum()


def pair_correlation(noise: torch.Tensor) -> torch.Tensor:
    """
    Compute the squared correlations of pixels with those beside and below them, at several scales (pix2pix-zero, arXiv
    2302.03027, eq. 3), averaged over all distances up to half a side, where the authors draw a few.

    Args:
        noise (`torch.Tensor` of shape `(rows, channels, height, width)`): Noise.

    Returns:
        `torch.Tensor`: Their sum over rows, channels, scales and both axes, a scalar.
    """
    total = noise.new_zeros(())
    while True:
        for axis in (-2, -1):
            length = noise.shape[axis]
            spectrum = torch.fft.rfft(noise, dim=axis)
            correlation = torch.fft.irfft(spectrum.real**2 + spectrum.imag**2, n=length, dim=axis) / length
            # (rows, channels, distances), each averaged over the lines along the axis
            correlation = correlation.movedim(axis, -1).mean(-2)[..., 1 : max(2, length // 2)]
            total = total + (correlation**2).mean(-1).sum()
        if min(noise.shape[-2:]) <= _COARSEST_SIDE:
            return total
        noise = torch.nn.functional.avg_pool2d(noise, 2)


def _gradient(loss: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        values = at.detach().requires_grad_()
        return torch.autograd.grad(loss(values), values)[0]
