"""Gradients of artifact detectors and rewards with respect to clean latents, through the decoder."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from .family import ModelFamily


Guide = Callable[[torch.Tensor], torch.Tensor]
"""Takes images of shape `(batch, 3, height, width)`, float32 RGB in [0, 1], and lets gradients pass to them."""

# Maps that are blended from tiles leave [0, 1] by rounding.
_ROUNDING = 1e-3


class GuideError(ValueError):
    """Error for a guide that gives something else than it must. The message names it `detectors` or `rewards`."""


def artifact_losses(detectors: Sequence[Guide], exponent: float) -> list[Guide]:
    """
    Return a loss for each detector: the mean over an image of its values to the power `exponent`.

    Args:
        detectors (`Sequence[Callable]`): From images to maps of shape `(batch, height, width)` or
            `(batch, 1, height, width)`, or to scores of shape `(batch,)`, in [0, 1].
        exponent (`float`): At least 1.

    Returns:
        `list[Callable]`: From images to losses of shape `(batch,)`. They raise a `GuideError` if a detector gives
        something else, or lets no gradient pass.
    """
    return [functools.partial(_artifact_loss, detector, exponent) for detector in detectors]


def reward_losses(rewards: Sequence[Guide]) -> list[Guide]:
    """
    Return a loss for each reward: its negative. See `artifact_losses`.

    Args:
        rewards (`Sequence[Callable]`): From images to numbers of shape `(batch,)`.
    """
    return [functools.partial(_reward_loss, reward) for reward in rewards]


def guiding_direction(
    family: ModelFamily, clean: torch.Tensor, losses: Sequence[Guide], checkpoint_vae: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Compute the direction of clean latents in which losses of their images rise.

    Each image's gradient is divided by its norm, so that images of a batch do not depend on each other, and averaged
    over the losses. A loss's own graph is freed before its gradient goes on through the decoder, which all share.

    Args:
        family (`ModelFamily`): Adapter with the autoencoder.
        clean (`torch.Tensor` of shape `(batch, channels, height, width)`): Normalised latents.
        losses (`Sequence[Callable]`): From images to losses of shape `(batch,)`.
        checkpoint_vae (`bool`, *optional*, defaults to `True`): See [`prepared_vae`].

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: The direction, in float32 and of the shape of `clean`, with a norm of at
        most 1 for each image; and losses of shape `(losses, batch)`.
    """
    directions, values = [], []
    with prepared_vae(family.vae, checkpoint_vae), torch.inference_mode(False), torch.enable_grad():
        point = clean.detach().clone().requires_grad_()
        images = (family.decode_latents(point).float() / 2 + 0.5).clamp(0, 1)
        for index, loss in enumerate(losses):
            pixels = images.detach().requires_grad_()
            value = loss(pixels)
            (of_pixels,) = torch.autograd.grad(value.sum(), pixels)
            is_last = index == len(losses) - 1
            (gradient,) = torch.autograd.grad(images, point, of_pixels, retain_graph=not is_last)
            directions.append(_unit(gradient))
            values.append(value.detach())
    return torch.stack(directions).mean(0), torch.stack(values)


@contextmanager
def prepared_vae(vae: Any, checkpoint: bool) -> Iterator[None]:
    """
    Prepare an autoencoder for gradients of its latents in a `with` block, after which it is as before.

    Its weights take no gradients, and nothing is kept for them. A float16 autoencoder runs in float32: activations of
    SDXL's exceed float16, and gradients vanish in it.

    Args:
        vae (`~diffusers.ModelMixin`): The autoencoder.
        checkpoint (`bool`): Whether activations are computed again for the gradient, if the autoencoder supports that.
    """
    trained = [parameter for parameter in vae.parameters() if parameter.requires_grad]
    with ExitStack() as stack:
        vae.requires_grad_(False)
        stack.callback(lambda: [parameter.requires_grad_() for parameter in trained])
        if vae.dtype == torch.float16:
            vae.to(torch.float32)
            stack.callback(vae.to, torch.float16)
        if checkpoint and vae._supports_gradient_checkpointing and not vae.is_gradient_checkpointing:
            vae.enable_gradient_checkpointing()
            stack.callback(vae.disable_gradient_checkpointing)
        yield


def _artifact_loss(detector: Guide, exponent: float, images: torch.Tensor) -> torch.Tensor:
    values = _checked(detector, images, "detectors")
    shape = tuple(values.shape)
    if values.ndim not in (1, 3) and not (values.ndim == 4 and shape[1] == 1):
        raise GuideError(
            f"`detectors` must give maps of shape (batch, height, width) or scores of shape (batch,), got {shape}"
        )
    low, high = float(values.detach().min()), float(values.detach().max())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise GuideError(
            f"`detectors` must give values in [0, 1], got {low:.3g} to {high:.3g}; apply a sigmoid to logits"
        )
    return values.clamp(min=0).pow(exponent).reshape(len(images), -1).mean(1)


def _reward_loss(reward: Guide, images: torch.Tensor) -> torch.Tensor:
    values = _checked(reward, images, "rewards")
    if values.ndim != 1:
        raise GuideError(f"`rewards` must give numbers of shape (batch,), got {tuple(values.shape)}")
    return -values


def _checked(guide: Guide, images: torch.Tensor, name: str) -> torch.Tensor:
    values = guide(images)
    if not isinstance(values, torch.Tensor) or values.ndim == 0 or len(values) != len(images):
        got = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
        raise GuideError(f"`{name}` must give a tensor with a row for each of {len(images)} images, got {got}")
    if not values.requires_grad:
        raise GuideError(f"`{name}` must let gradients pass; leave out `torch.no_grad`, `detach` and thresholds")
    if not bool(values.isfinite().all()):
        raise GuideError(f"`{name}` must give finite numbers, got NaN or infinity")
    return values.float()


def _unit(gradient: torch.Tensor) -> torch.Tensor:
    """Divide each image's gradient by its norm; zero stays zero."""
    flat = gradient.float().flatten(1)
    # The squares of small gradients, which confident detectors have, underflow.
    largest = flat.abs().amax(1, keepdim=True)
    scaled = flat / largest.clamp(min=torch.finfo(torch.float32).tiny)
    return (scaled / scaled.norm(dim=1, keepdim=True).clamp(min=0.5)).view_as(gradient)
