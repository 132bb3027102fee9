"""Decoding of artifact images whose background is the clean image's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    # Not `from .x import y`: of a repository on the Hub, diffusers fetches a file once for every such line that leads
    # to it, from each module that leads there.
    from . import family

    TransformerFamily = family.TransformerFamily


MARGIN = 2
"""Tokens around the dilated target that are decoded; a variant fades into its clean image over the middle of them."""


def decode_targets(
    family: TransformerFamily, latents: torch.Tensor, image_indices: Sequence[int], inside: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""
    Decode clean images, and for each variant the neighbourhood of its target, which fades into the clean image.

    Pixels one and a half tokens or more from the dilated target equal the clean image's bit for bit. What a decoder
    would change there is left out: less than one grey level of the embedded model's, whose convolutions reach farther,
    and what attention and group normalisation over the whole image carry there. Autoencoders that declare a
    `decoder_reach` decode only that neighbourhood, others the whole image.

    Args:
        family (`TransformerFamily`): Adapter with the autoencoder.
        latents (`torch.Tensor` of shape `(clean + variants, channels, height, width)`): Normalised latents.
        image_indices (`Sequence[int]`): For each variant, the index of its clean image.
        inside (`torch.Tensor` of shape `(variants, rows, columns)`): Tokens that differ from the clean image's; see
            [`dilated_targets`].

    Returns:
        `tuple[torch.Tensor, torch.Tensor]` of shape `(images, 3, height, width)`, about in [-1, 1]: Clean images, and
        variants.
    """
    first = len(latents) - len(inside)
    cleans = family.decode_latents(latents[:first]).float()
    return cleans, decode_variants(family, latents[first:], cleans[list(image_indices)], inside)


def decode_variants(
    family: TransformerFamily, latents: torch.Tensor, cleans: torch.Tensor, inside: torch.Tensor
) -> torch.Tensor:
    r"""
    Decode the neighbourhood of each variant's target into a decoded clean image; see [`decode_targets`].

    Args:
        family (`TransformerFamily`): Adapter with the autoencoder.
        latents (`torch.Tensor` of shape `(variants, channels, height, width)`): Normalised latents of the variants.
        cleans (`torch.Tensor` of shape `(variants, 3, height, width)`): The clean image of each variant, about in
            [-1, 1]; the variants are written into it.
        inside (`torch.Tensor` of shape `(variants, rows, columns)`): As in [`decode_targets`].

    Returns:
        `torch.Tensor` of the shape of `cleans`.
    """
    images, side, size = cleans, family.token_side, family.patch_size
    weights = _fade(inside, size)
    everything = tuple(slice(0, length) for length in inside.shape[1:])
    for variant in inside.flatten(1).any(1).nonzero()[:, 0].tolist():
        crop = everything if family.decoder_reach is None else _window(inside[variant], MARGIN)
        rows, columns = (slice(side * part.start, side * part.stop) for part in crop)
        decoded = family.decode_latents(latents[variant, :, rows, columns][None]).float()[0]
        rows, columns = (slice(size * part.start, size * part.stop) for part in crop)
        weight, clean = weights[variant, :, rows, columns], images[variant, :, rows, columns]
        images[variant, :, rows, columns] = torch.where(weight > 0, clean.lerp(decoded, weight), clean)
    return images


def _window(inside: torch.Tensor, margin: int) -> tuple[slice, ...]:
    """Return rows and columns of the rectangle around the marked tokens, `margin` tokens larger on each side."""
    spans = []
    for axis, length in enumerate(inside.shape):
        marked = inside.any(1 - axis).nonzero()
        spans.append(slice(max(0, int(marked.min()) - margin), min(length, int(marked.max()) + 1 + margin)))
    return tuple(spans)


def _fade(inside: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Return weights of shape `(variants, 1, height, width)`: 1 inside, 0 one and a half tokens away."""
    near = torch.nn.functional.max_pool2d(inside[:, None].float(), 3, stride=1, padding=1)
    return torch.nn.functional.interpolate(near, scale_factor=patch_size, mode="bilinear")
