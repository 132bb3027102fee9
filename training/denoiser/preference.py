r"""
Preferences between the images of a pair, as a loss of the denoiser's own errors: neither detector nor decoder takes
part, so there is none to fool and memory is that of plain LoRA training.

For an image x with noise n at a time t, the error of a model is

$$ e(x) = \mathrm{mean}\left(w\,(v(x_t, t) - v^*(x, n))^2\right), $$

of a rectified flow with x_t = (1 - σ) x + σ n and v* = n - x, else with the noise or v that it predicts. The weight w
is `mask_weight` within the artifact's mask and 1 elsewhere (ASAP, arXiv 2605.25759). The gap of a pair says how far
the model, compared with the reference, has moved from the artifact image towards the clean one:

$$ g = \left(e(x^-) - e_{ref}(x^-)\right) - \left(e(x^+) - e_{ref}(x^+)\right). $$

The reference is the model without its LoRA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F

from datasets_script.utils.errors import ArgumentError, check_choice
from training.denoiser.lora import without_lora
from training.denoiser.rollout import Conditions, Denoiser


PreferenceForm = Literal["bounded", "sigmoid"]
FORMS: tuple[PreferenceForm, ...] = get_args(PreferenceForm)
NoiseSource = Literal["own", "random"]
NOISE_SOURCES: tuple[NoiseSource, ...] = get_args(NoiseSource)


@dataclass(frozen=True)
class PreferenceSettings:
    """
    Form of the loss.

    Args:
        form (`str`, *optional*, defaults to `"bounded"`): `"bounded"`: max(0, margin - gap), whose gradient ends once
            the gap of a pair has reached the margin (ASAP). `"sigmoid"`: -log σ(beta / 2 · gap), without a bound
            (Diffusion-DPO, arXiv 2311.12908; the half is that of its code).
        mask_weight (`float`, *optional*, defaults to 10): Weight of errors within the artifact's mask, at least 0; 1
            is a loss that is not localised.
        margin (`float`, *optional*, defaults to 0.01): Gap to reach, in units of the error.
        beta (`float`, *optional*, defaults to 5000): Slope of `"sigmoid"`.
        noise (`str`, *optional*, defaults to `"own"`): `"own"`: each image with the noise that it inverts to (PNAPO,
            arXiv 2605.09433), which `artiagent synthesize --store-noise` stores. `"random"`: both with the same noise,
            drawn anew each time.
        clean_weight (`float`, *optional*, defaults to 0): Factor of how far the error of the clean image exceeds the
            reference's, which is added to the loss: a gap also grows where both errors rise. Not in ASAP.

    Raises:
        ArgumentError: A name is unknown or a number out of range.
    """

    form: PreferenceForm = "bounded"
    mask_weight: float = 10.0
    margin: float = 0.01
    beta: float = 5000.0
    noise: NoiseSource = "own"
    clean_weight: float = 0.0

    def __post_init__(self) -> None:
        check_choice("form", self.form, FORMS)
        check_choice("noise", self.noise, NOISE_SOURCES)
        for name in ("mask_weight", "clean_weight"):
            if not getattr(self, name) >= 0:
                raise ArgumentError(f"`{name}` must be at least 0, got {getattr(self, name)}")
        for name in ("margin", "beta"):
            if not getattr(self, name) > 0:
                raise ArgumentError(f"`{name}` must be above 0, got {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class LatentPair:
    """
    A pair as the denoiser sees it. The first entry of each tensor is the clean image's, the second the artifact
    image's.

    Attributes:
        latents (`torch.Tensor` of shape `(2, channels, height, width)`): Both images, float32.
        mask (`torch.Tensor` of shape `(height, width)`): Cells of latents that the masks of its artifacts touch, bool.
        noise (`torch.Tensor` of the shape of `latents`, *optional*): What each inverts to, float32.
    """

    latents: torch.Tensor
    mask: torch.Tensor
    noise: torch.Tensor | None = None

    def on(self, device: torch.device | str) -> LatentPair:
        """Move everything to a device."""
        noise = None if self.noise is None else self.noise.to(device)
        return LatentPair(self.latents.to(device), self.mask.to(device), noise)


@dataclass(frozen=True, eq=False)
class Comparison:
    """
    A pair at one time, with one noise.

    Attributes:
        loss (`torch.Tensor` of shape `()`): The loss.
        gap (`torch.Tensor` of shape `()`): The gap, without the margin's bound.
        clean_rise (`torch.Tensor` of shape `()`): Error of the clean image minus the reference's.
    """

    loss: torch.Tensor
    gap: torch.Tensor
    clean_rise: torch.Tensor


def compare(
    denoiser: Denoiser,
    pair: LatentPair,
    conditions: Conditions,
    settings: PreferenceSettings,
    generator: torch.Generator,
) -> Comparison:
    """
    Compare the two images of a pair under the model and under the reference.

    Args:
        denoiser (`Denoiser`): With a LoRA of [`~training.denoiser.lora.add_lora`].
        pair (`LatentPair`): The pair.
        conditions (`Conditions`): Its prompt, one row.
        settings (`PreferenceSettings`): Form of the loss.
        generator (`torch.Generator`): Draws the time, the same for both images, and random noise. On the CPU.

    Returns:
        `Comparison`: Gradients pass to the LoRA.

    Raises:
        ValueError: The pair has no noise of its own, and the settings ask for it.
    """
    pair, both = pair.on(denoiser.device), conditions.select([0, 0]).on(denoiser.device)
    times = denoiser.draw_times(1, generator).expand(2)
    noise = noise_of(pair, settings.noise, generator)
    sample, timestep, wanted = denoiser.noised(pair.latents, noise, times)
    weights = cell_weights(pair.mask, settings.mask_weight)
    with torch.no_grad(), without_lora(denoiser):
        reference = weighted_errors(denoiser.evaluate(sample, timestep, both, guided=False), wanted, weights)
    found = weighted_errors(denoiser.evaluate(sample, timestep, both, guided=False), wanted, weights)
    rise = found - reference
    gap = rise[1] - rise[0]
    return Comparison(preference_loss(gap, rise[0], settings), gap, rise[0])


def preference_loss(gap: torch.Tensor, clean_rise: torch.Tensor, settings: PreferenceSettings) -> torch.Tensor:
    """Compute the loss of a gap, and of how far the error of the clean image has risen."""
    if settings.form == "bounded":
        loss = (settings.margin - gap).clamp(min=0)
    else:
        loss = -F.logsigmoid(settings.beta / 2 * gap)
    return loss + settings.clean_weight * clean_rise.clamp(min=0)


def weighted_errors(found: torch.Tensor, wanted: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """
    Compute the mean of weighted squared errors.

    Args:
        found, wanted (`torch.Tensor` of shape `(batch, channels, height, width)`): Predictions, and what they should
            be.
        weights (`torch.Tensor` of shape `(height, width)`): Weight of each cell; their mean is not made 1.

    Returns:
        `torch.Tensor` of shape `(batch,)`.
    """
    return (weights * (found - wanted).square()).mean((1, 2, 3))


def cell_weights(mask: torch.Tensor, mask_weight: float) -> torch.Tensor:
    """Return `mask_weight` where a bool mask is set, and 1 elsewhere, float32."""
    return torch.where(mask, mask_weight, 1.0)


def latent_mask(mask: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """
    Return the cells of latents that a mask of pixels touches. To take the nearest pixel would lose thin parts.

    Args:
        mask (`torch.Tensor` of shape `(pixel rows, pixel columns)`): Bool.
        height, width (`int`): Size of the latents, of which the mask's is a multiple.
    """
    rows, columns = mask.shape[0] // height, mask.shape[1] // width
    return mask.reshape(height, rows, width, columns).any(3).any(1)


def noise_of(pair: LatentPair, source: NoiseSource, generator: torch.Generator) -> torch.Tensor:
    """
    Return the noise of both images.

    Args:
        pair (`LatentPair`): The pair.
        source (`str`): `"own"` or `"random"`.
        generator (`torch.Generator`): Draws random noise, on the CPU.

    Raises:
        ValueError: The pair has no noise of its own.
    """
    if source == "random":
        drawn = torch.randn(pair.latents.shape[1:], generator=generator)
        return drawn.to(pair.latents.device).expand_as(pair.latents)
    if pair.noise is None:
        raise ValueError("`noise` must be 'random' for pairs that were made without `--store-noise`, got 'own'")
    return pair.noise
