"""Confinement of artifacts: everything away from the target is kept exactly as in the clean image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .mapping import PatchMapping


def dilated_targets(mappings: Sequence[PatchMapping], device: torch.device | str = "cpu") -> torch.Tensor:
    """
    Mark the targets and the patches that touch them, corners included.

    Args:
        mappings (`Sequence[PatchMapping]`): Mappings on one grid.
        device (`torch.device`, *optional*, defaults to `"cpu"`): Device of the result.

    Returns:
        `torch.Tensor` of shape `(mappings, rows, columns)`, `bool`.
    """
    targets = torch.from_numpy(np.stack([mapping.target_patches() for mapping in mappings])).to(device)
    return torch.nn.functional.max_pool2d(targets[:, None].float(), 3, stride=1, padding=1)[:, 0].bool()


def confine_tokens(tokens: torch.Tensor, sources: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    r"""
    Replace every token outside the dilated target by the reconstruction's.

    Args:
        tokens (`torch.Tensor` of shape `(rows, tokens, channels)`): Reconstructions, then artifact variants.
        sources (`torch.Tensor` of shape `(variants,)`): Row of each variant's reconstruction.
        inside (`torch.Tensor` of shape `(variants, rows, columns)`): Result of [`dilated_targets`].

    Returns:
        `torch.Tensor` of the shape of `tokens`.
    """
    first = len(tokens) - len(sources)
    variants = torch.where(inside.flatten(1)[..., None], tokens[first:], tokens[sources])
    return torch.cat([tokens[:first], variants])


def confine_pixels(
    images: torch.Tensor, reconstructions: torch.Tensor, mappings: Sequence[PatchMapping], patch_size: int
) -> torch.Tensor:
    r"""
    Fade artifact images into their clean images, from the target's edge to one patch beyond it.

    Args:
        images (`torch.Tensor` of shape `(variants, 3, height, width)`): Artifact images.
        reconstructions (`torch.Tensor` of shape `(variants, 3, height, width)`): Clean image of each variant.
        mappings (`Sequence[PatchMapping]`): Mapping of each variant.
        patch_size (`int`): Side of a patch in pixels.

    Returns:
        `torch.Tensor` of the shape of `images`, equal to `reconstructions` at a distance of one patch or more from
        the target.
    """
    targets = torch.from_numpy(np.stack([mapping.target_patches() for mapping in mappings]))[:, None].to(images)
    mask = targets.repeat_interleave(patch_size, dim=2).repeat_interleave(patch_size, dim=3)
    # Half a patch of margin, blurred by as much: 1 on the target, 0 from one patch away, linear between.
    half = patch_size // 2
    margin = torch.nn.functional.max_pool2d(mask, 2 * half + 1, stride=1, padding=half)
    ramp = torch.nn.functional.pad(margin, (half,) * 4, mode="replicate")
    ramp = torch.nn.functional.avg_pool2d(ramp, 2 * half + 1, stride=1)
    return torch.where(ramp > 0, reconstructions.lerp(images, ramp.clamp(0, 1)), reconstructions)
