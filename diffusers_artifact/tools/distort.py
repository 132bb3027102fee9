"""`distort`: the patches of a part change places (distortion)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from ..mapping import NotApplicable, PatchMapping
from .chance import integer, normal, permutation
from .geometry import is_on_grid, nearest, token_indices


if TYPE_CHECKING:
    import torch


DistortionKernel = Literal["shuffle", "jitter", "strip"]
DISTORTION_KERNELS: tuple[DistortionKernel, ...] = get_args(DistortionKernel)

JITTER_SIGMA = 1.0
JITTER_RETRIES = 10
NUM_STRIPS = 6


def distort(
    part: np.ndarray,
    *,
    entity: np.ndarray,
    kernel: DistortionKernel = "shuffle",
    occupied: np.ndarray | None = None,
    generator: torch.Generator,
) -> PatchMapping | NotApplicable:
    """
    Rearranges a part (ArtiAgent §4.1). Patches that would keep their own content are no targets.

    Args:
        part (`np.ndarray` of shape `grid`, `bool`): Patches of the part.
        entity (`np.ndarray` of shape `grid`, `bool`): Patches of the entity it belongs to, used by `"jitter"`.
        kernel (`str`, defaults to `"shuffle"`):
            - `"shuffle"`: a random cyclic permutation of the part, so that no patch stays;
            - `"jitter"`: each patch takes one at a Gaussian offset of σ = 1 patch, drawn again up to 10 times until it
              lies inside the entity, then the nearest inside: near the part's outline it may show what adjoins;
            - `"strip"`: the longer side of the part is cut into 6 strips, and the part's patches in each line of a
              strip rotate along the line, from strip to strip by +1, −1, +2, −2, +3, −3 or the opposite; sizes that a
              line is too short for start again at 1. Lines of one patch stay.
        occupied (`np.ndarray` of shape `grid`, `bool`, *optional*): Patches that other artifacts of the image use.
        generator (`torch.Generator`): Source of the permutation, the offsets and the first strip's sign.

    Returns:
        [`PatchMapping`] of type `"distortion"`, or [`NotApplicable`].

    Raises:
        ValueError: an unknown kernel.
    """
    if kernel not in DISTORTION_KERNELS:
        raise ValueError(f"`kernel` must be among {DISTORTION_KERNELS}, got {kernel!r}")
    occupied = np.zeros_like(part) if occupied is None else occupied
    if (part & occupied).any():
        return NotApplicable("another artifact uses patches of the part")
    if part.sum() < 2:
        return NotApplicable("the part covers fewer than two patches")
    targets = np.argwhere(part)
    if kernel == "shuffle":
        references = _shuffle(targets, generator)
    elif kernel == "jitter":
        references = _jitter(targets, (part | entity) & ~occupied, generator)
    else:
        references = _strip(targets, generator)
    moved = (targets != references).any(axis=1)
    if not moved.any():
        return NotApplicable(f"{kernel} leaves every patch of the part in its place")
    pairs = zip(token_indices(targets[moved], part.shape), token_indices(references[moved], part.shape), strict=True)
    return PatchMapping.from_pairs(pairs, part.shape, "distortion")


def _shuffle(targets: np.ndarray, generator: torch.Generator) -> np.ndarray:
    order = permutation(len(targets), generator)
    references = np.empty_like(targets)
    references[order] = targets[np.roll(order, 1)]
    return references


def _jitter(targets: np.ndarray, allowed: np.ndarray, generator: torch.Generator) -> np.ndarray:
    references = _jittered(targets, generator)
    for _ in range(JITTER_RETRIES):
        illegal = ~_is_member(references, allowed)
        references[illegal] = _jittered(targets[illegal], generator)
    illegal = ~_is_member(references, allowed)
    references[illegal] = nearest(references[illegal], allowed, generator)
    return references


def _jittered(points: np.ndarray, generator: torch.Generator) -> np.ndarray:
    return points + np.rint(JITTER_SIGMA * normal(points.shape, generator)).astype(points.dtype)


def _is_member(points: np.ndarray, patches: np.ndarray) -> np.ndarray:
    member = is_on_grid(points, patches.shape)
    member[member] = patches[tuple(points[member].T)]
    return member


def _strip(targets: np.ndarray, generator: torch.Generator) -> np.ndarray:
    extent = np.ptp(targets, axis=0)
    axis = 0 if extent[0] >= extent[1] else 1
    sign = 2 * integer(2, generator) - 1
    references = targets.copy()
    for strip, lines in enumerate(np.array_split(np.unique(targets[:, axis]), NUM_STRIPS)):
        for line in lines:
            members = np.flatnonzero(targets[:, axis] == line)
            if len(members) > 1:
                # Two strips a size: with a new size each, +1 and −2 would be the same rotation of three patches.
                step = sign * (-1) ** strip * (1 + strip // 2 % (len(members) - 1))
                references[members] = targets[np.roll(members, step)]
    return references
