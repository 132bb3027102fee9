"""Confinement of artifacts: everything away from the target is kept exactly as in the clean image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from .visible_change import THRESHOLD, change_map, owners, target_mask


if TYPE_CHECKING:
    # Not `from .x import y`: of a repository on the Hub, diffusers fetches a file once for every such line that leads
    # to it, from each module that leads there.
    from . import mapping

    ArtifactType = mapping.ArtifactType
    PatchMapping = mapping.PatchMapping


# Smoothed change below which the artifact image gives way to the clean image wholly; at `THRESHOLD`, not at all. Where
# the change is so small, the way between them cannot be seen.
_LEAST_CHANGE = THRESHOLD / 2

# What has changed within `_NEAR` px of the visible change is kept, and fades over the next `_NEAR_FADE` px.
_NEAR, _NEAR_FADE = 2, 4

# Pixels around a change that its smoothing reaches, or more.
_FRAME = 8

# Pixels that an artifact reaches beyond its outline, and over how many it then fades. Copies look best cut close:
# their fringe shows what surrounds the original. What is removed must be covered wholly, with its shadow and the blur
# of its edge, and the border of what covers it must not trace its outline.
_REACHES: dict[ArtifactType, tuple[int, int]] = {"omission": (4, 8)}
_REACH = (1, 3)


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


def soft_outline(mask: np.ndarray, artifact_type: ArtifactType) -> np.ndarray:
    """
    Compute how far an artifact image is to show, for a seam along the outline of an object and not along patches.

    Args:
        mask (`np.ndarray` of shape `(height, width)`, `bool`): The object that the artifact adds, removes or changes.
        artifact_type (`str`): Type of the artifact, which sets how far it reaches beyond the object.

    Returns:
        `np.ndarray` of shape `(height, width)`, `float32` in [0, 1]: 1 on the object, 0 away from it.
    """
    return _grown(mask, *_REACHES.get(artifact_type, _REACH))


def confine_to_visible(
    images: torch.Tensor,
    reconstructions: torch.Tensor,
    mappings: Sequence[PatchMapping],
    outlines: Sequence[np.ndarray] | None = None,
) -> torch.Tensor:
    r"""
    Keep of artifact images only what can be seen of their artifacts: the components of the visible change that touch
    target patches. They fade into the clean image where the change is too small to be seen. Steps between the tokens
    of a target are softened, because their grid would give it away.

    Args:
        images (`torch.Tensor` of shape `(variants, 3, height, width)`): Artifact images, in [-1, 1].
        reconstructions (`torch.Tensor` of shape `(variants, 3, height, width)`): Clean image of each variant.
        mappings (`Sequence[PatchMapping]`): Mapping of each variant.
        outlines (`Sequence[np.ndarray]`, *optional*): For each variant how far the artifact image is to show, of shape
            `(height, width)`, in [0, 1]; see [`soft_outline`]. By default fully.

    Returns:
        `torch.Tensor` of the shape of `images`. With 8 bits, all visible change (see `visible_change.py`) is connected
        to target patches.
    """
    images = _soften_seams(images, mappings)
    clean, flawed = _to_bytes(reconstructions), _to_bytes(images)
    weights = np.stack(
        [
            _visible_weight(
                before,
                after,
                target_mask(mapping, images.shape[-2]),
                np.ones(images.shape[-2:]) if outlines is None else outlines[index],
            )
            for index, (before, after, mapping) in enumerate(zip(clean, flawed, mappings, strict=True))
        ]
    )
    ramp = torch.from_numpy(weights.astype(np.float32))[:, None].to(images)
    # Numbers that overflowed must stay for the caller to find.
    shown = (ramp > 0) | ~images.isfinite()
    return torch.where(shown, reconstructions.lerp(images, ramp), reconstructions)


def _soften_seams(images: torch.Tensor, mappings: Sequence[PatchMapping]) -> torch.Tensor:
    """
    Spread each step across a border of target patches over a quarter of a patch on both sides, as far as it is greater
    than the steps beside it: what video codecs call deblocking.
    """
    targets = torch.from_numpy(np.stack([mapping.target_patches() for mapping in mappings])).to(images.device)
    size = images.shape[-2] // targets.shape[-2]
    return _soften_columns(_soften_columns(images, targets, size).mT, targets.mT, size).mT


def _soften_columns(images: torch.Tensor, targets: torch.Tensor, size: int) -> torch.Tensor:
    """Soften the steps between columns of patches of `size` px; `targets` has shape `(variants, rows, columns)`."""
    images = images.clone()
    reach = max(2, size // 4)
    ramp = (torch.arange(reach, device=images.device) + 0.5) / (2 * reach)
    beside = (targets[..., :-1] | targets[..., 1:]).repeat_interleave(size, dim=1)[:, None]
    for column in range(1, targets.shape[-1]):
        left = images[..., column * size - reach : column * size]
        right = images[..., column * size : column * size + reach]
        step = right[..., :1] - left[..., -1:]
        natural = torch.cat([left.diff(dim=-1), right.diff(dim=-1)], dim=-1).abs().amax(-1, keepdim=True)
        excess = step.sign() * (step.abs() - natural).clamp(min=0) * beside[..., column - 1, None]
        left += excess * ramp
        right -= excess * ramp.flip(0)
    return images


def _visible_weight(clean: np.ndarray, flawed: np.ndarray, targets: np.ndarray, outline: np.ndarray) -> np.ndarray:
    """Return how far the artifact image is to show at every pixel, in [0, 1], given both images as `uint8`."""
    fading = (change_map(clean, flawed) - _LEAST_CHANGE) / (THRESHOLD - _LEAST_CHANGE)
    weight = outline * _smooth_step(fading)
    rows, columns = (np.flatnonzero((weight > 0).any(axis)) for axis in (1, 0))
    if not rows.size:
        return weight
    # The rest is done where something is kept, and as far around it as smoothing reaches.
    window = tuple(slice(max(0, line[0] - _FRAME), line[-1] + 1 + _FRAME) for line in (rows, columns))
    weight[window] = _connected_weight(clean[window], flawed[window], targets[window], weight[window])
    return weight


def _connected_weight(clean: np.ndarray, flawed: np.ndarray, targets: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return weights reduced so that all that is seen is connected to the targets."""
    difference = flawed.astype(np.float32) - clean
    for growth in itertools.count(1):
        # What is seen depends on what is kept, and so does which of it is connected.
        shown = np.rint(clean + weight[..., None] * difference).astype(np.uint8)
        visible = change_map(clean, shown) > THRESHOLD
        own = owners(visible, [targets]) >= 0
        if growth > 1 and (own == visible).all():
            break
        weight = weight * _grown(own, _NEAR, _NEAR_FADE) * (1 - _grown(visible & ~own, growth, growth))
    return weight


def _grown(mask: np.ndarray, margin: int, fade: int) -> np.ndarray:
    """Return weights that are 1 up to `margin` px from a mask and fall to 0 over the next `fade` px."""
    total = np.zeros(mask.shape, dtype=np.float32)
    for step in range(margin + fade):
        if step >= margin:
            total += mask
        mask = _dilated(mask, diagonal=step % 2 == 1)
    return _smooth_step(total / fade)


def _dilated(mask: np.ndarray, diagonal: bool) -> np.ndarray:
    """Grow a mask by a pixel in four directions, or in eight; both in turn approximate a disc."""
    rows = mask.copy()
    rows[1:] |= mask[:-1]
    rows[:-1] |= mask[1:]
    across = rows if diagonal else mask
    grown = rows.copy()
    grown[:, 1:] |= across[:, :-1]
    grown[:, :-1] |= across[:, 1:]
    return grown


def _smooth_step(values: np.ndarray) -> np.ndarray:
    clipped = np.clip(values, 0, 1)
    return clipped * clipped * (3 - 2 * clipped)


def _to_bytes(images: torch.Tensor) -> np.ndarray:
    """Convert images in [-1, 1] to `uint8`, of shape `(images, height, width, 3)`, as diffusers does for PIL."""
    return ((images / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
