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
"""Tokens around a dilated target that are taken from a decoder without limited reach. Beyond them, what attention and
group normalisation over the whole image change is left out."""


def decode_targets(
    family: TransformerFamily, latents: torch.Tensor, image_indices: Sequence[int], inside: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""
    Decode clean images, and for each variant what its target changes; the rest of a variant is its clean image.

    An autoencoder that declares its reach decodes only the neighbourhood of the target, with the result of decoding
    all of it. Others decode all, and fade into the clean image over [`MARGIN`] tokens.

    Args:
        family (`TransformerFamily`): Adapter with the autoencoder.
        latents (`torch.Tensor` of shape `(clean + variants, channels, height, width)`): Normalised latents.
        image_indices (`Sequence[int]`): For each variant, the index of its clean image.
        inside (`torch.Tensor` of shape `(variants, rows, columns)`): Tokens that differ from the clean image's; see
            [`dilated_targets`].

    Returns:
        `tuple[torch.Tensor, torch.Tensor]` of shape `(images, 3, height, width)` in about [-1, 1]: Clean images, and
        variants.
    """
    first = len(latents) - len(inside)
    cleans = family.decode_latents(latents[:first]).float()
    images = cleans[torch.tensor(image_indices, device=cleans.device)]
    flawed = inside.flatten(1).any(1).nonzero()[:, 0].tolist()
    if family.decoder_reach is None:
        if flawed:
            decoded = family.decode_latents(latents[first:][flawed]).float()
            weights = _fade(inside[flawed], family.patch_size)
            images[flawed] = torch.where(weights > 0, images[flawed].lerp(decoded, weights), images[flawed])
        return cleans, images
    for variant in flawed:
        crop = _window(inside[variant], 2 * family.decoder_reach)
        kept = _window(inside[variant], family.decoder_reach)
        side = family.token_side
        rows, columns = (slice(side * part.start, side * part.stop) for part in crop)
        decoded = family.decode_latents(latents[first + variant, :, rows, columns][None]).float()[0]
        size = family.patch_size
        place = [slice(size * part.start, size * part.stop) for part in kept]
        within = [
            slice(size * (part.start - whole.start), size * (part.stop - whole.start))
            for part, whole in zip(kept, crop, strict=True)
        ]
        images[variant][:, *place] = decoded[:, *within]
    return cleans, images


def _window(inside: torch.Tensor, margin: int) -> tuple[slice, slice]:
    """Return rows and columns of the rectangle around the marked tokens, `margin` tokens larger on each side."""
    spans = []
    for axis, length in enumerate(inside.shape):
        marked = inside.any(1 - axis).nonzero()
        spans.append(slice(max(0, int(marked.min()) - margin), min(length, int(marked.max()) + 1 + margin)))
    return spans[0], spans[1]


def _fade(inside: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Return weights of shape `(variants, 1, height, width)`: 1 inside, falling to 0 over [`MARGIN`] tokens."""
    half = MARGIN * patch_size // 2
    mask = inside[:, None].float().repeat_interleave(patch_size, 2).repeat_interleave(patch_size, 3)
    margin = torch.nn.functional.max_pool2d(mask, 2 * half + 1, stride=1, padding=half)
    ramp = torch.nn.functional.pad(margin, (half,) * 4, mode="replicate")
    return torch.nn.functional.avg_pool2d(ramp, 2 * half + 1, stride=1).clamp(0, 1)
