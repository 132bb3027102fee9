"""The tool `distort`: the patches of a part change places (distortion)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from ..mapping import NotApplicable, PatchMapping
from .chance import integer, normal, permutation
from .geometry import is_on_grid, nearest, token_indices
from .tool import Tool


if TYPE_CHECKING:
    import torch


DistortionKernel = Literal["shuffle", "jitter", "strip"]
DISTORTION_KERNELS: tuple[DistortionKernel, ...] = get_args(DistortionKernel)

JITTER_SIGMA = 1.0
JITTER_RETRIES = 10
NUM_STRIPS = 6


def distort(
    part: np.ndarray,
    entity: np.ndarray,
    *,
    kernel: DistortionKernel = "shuffle",
    occupied: np.ndarray | None = None,
    generator: torch.Generator,
) -> PatchMapping | NotApplicable:
    """
    Rearrange the patches of a part (ArtiAgent §4.1). Patches that keep their own content are not targets.

    Args:
        part (`np.ndarray` of shape `grid`, `bool`): Patches of the part.
        entity (`np.ndarray` of shape `grid`, `bool`): Patches of the entity that the part belongs to, used by
            `"jitter"`.
        kernel (`str`, *optional*, defaults to `"shuffle"`):
            - `"shuffle"`: a random cyclic permutation of the part, in which no patch stays;
            - `"jitter"`: each patch borrows from a Gaussian offset of σ = 1 patch. An offset that leads out of the
              entity is drawn again up to 10 times, then replaced by the nearest patch inside. Near the part's outline,
              patches may show the rest of the entity;
            - `"strip"`: the longer side of the part is cut into 6 strips, and the part's patches rotate along each
              line of a strip, by +1, −1, +2, −2, +3, −3 patches from strip to strip, or by the opposite. In lines that
              are too short for a shift, shifts start again at 1; lines of one patch stay.
        occupied (`np.ndarray` of shape `grid`, `bool`, *optional*): Patches that other artifacts of the image use.
        generator (`torch.Generator`): Draws the permutation, the offsets and the sign of the first strip's shift.

    Returns:
        [`PatchMapping`] of type `"distortion"`, or [`NotApplicable`] if there is none.

    Raises:
        ValueError: `kernel` is unknown.
    """
    if kernel not in DISTORTION_KERNELS:
        raise ValueError(f"`kernel` must be among {', '.join(DISTORTION_KERNELS)}, got {kernel!r}")
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
                # Two strips for each size: with a new size each, +1 and −2 would be one rotation of three patches.
                step = sign * (-1) ** strip * (1 + strip // 2 % (len(members) - 1))
                references[members] = targets[np.roll(members, step)]
    return references


DISTORT = Tool(
    name="distort",
    artifact_type="distortion",
    description="the patches of a part change places",
    works_on="intermediate",
    function=distort,
    kernels=DISTORTION_KERNELS,
)
