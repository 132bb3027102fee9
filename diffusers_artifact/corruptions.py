"""
The five corruptions of Menn et al. (§3.2, §5.2): what they make of an inverted latent inside a mask.

Each is a pure function of the inverted latent, the clean latent it was inverted from, a mask on the latent grid, the
noise level and a generator. Outside the mask all of them return the inverted latent bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from diffusers.utils.torch_utils import randn_tensor


BLUR_SIGMA = 2.0
"""Standard deviation of `blur`, in latent pixels. The paper names none."""

DOWNSCALE_FACTOR = 8
"""Factor of `downscale` (Menn et al., §5.2)."""


@dataclass(frozen=True)
class NoiseLevel:
    """
    Amplitudes of a noisy latent, `signal * clean + noise * epsilon`.

    Attributes:
        signal (`float`): Amplitude of the clean latent.
        noise (`float`): Amplitude of the noise.
    """

    signal: float
    noise: float

    @property
    def sigma(self) -> float:
        """Sigma of the rectified flow's level with the same signal-to-noise ratio, in [0, 1]."""
        return self.noise / (self.signal + self.noise)


class Corruption(Protocol):
    """
    Takes the inverted latent `(channels, height, width)`, the clean one, the mask `(height, width)`, `bool`, the level
    and a generator, and returns the corrupted latent.
    """

    def __call__(
        self,
        inverted: torch.Tensor,
        clean: torch.Tensor,
        mask: torch.Tensor,
        level: NoiseLevel,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor: ...


def proposed(
    inverted: torch.Tensor,
    clean: torch.Tensor,
    mask: torch.Tensor,
    level: NoiseLevel,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    r"""
    Noise the clean latent to the inverted latent's level inside the mask (Menn et al., eq. 4 and 5).

    Args:
        inverted (`torch.Tensor` of shape `(channels, height, width)`): Latent that inversion led to.
        clean (`torch.Tensor` of shape `(channels, height, width)`): Latent that it began from.
        mask (`torch.Tensor` of shape `(height, width)`, `bool`): Where to corrupt.
        level (`NoiseLevel`): Amplitudes at the inverted latent.
        generator (`torch.Generator`, *optional*): Draws the noise; by default torch's global one.

    Returns:
        `torch.Tensor` of the shape of `inverted`.
    """
    noise = randn_tensor(inverted.shape, generator, inverted.device, inverted.dtype)
    return torch.where(mask, level.signal * clean + level.noise * noise, inverted)


def gaussian(
    inverted: torch.Tensor,
    clean: torch.Tensor,
    mask: torch.Tensor,
    level: NoiseLevel,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Put noise of variance 1 inside the mask, whatever the level (Menn et al., §5.2). Arguments as [`proposed`]."""
    noise = randn_tensor(inverted.shape, generator, inverted.device, inverted.dtype)
    return torch.where(mask, noise, inverted)


def blur(
    inverted: torch.Tensor,
    clean: torch.Tensor,
    mask: torch.Tensor,
    level: NoiseLevel,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """
    Average the inverted latent inside the mask with a Gaussian of `BLUR_SIGMA` latent pixels (Menn et al., §5.2).

    Next to the mask's outline the average takes in latent pixels outside. At the latent's border values continue
    mirrored, or end where the latent is smaller than the Gaussian. Arguments as [`proposed`]; nothing is random.
    """
    blurred = inverted[None]
    for axis in (-1, -2):
        blurred = _averaged(blurred, axis)
    return torch.where(mask, blurred[0], inverted)


def downscale(
    inverted: torch.Tensor,
    clean: torch.Tensor,
    mask: torch.Tensor,
    level: NoiseLevel,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """
    Replace the inverted latent inside the mask by its mean over cells of 8×8 latent pixels (Menn et al., §5.2).

    The cells begin at the upper left corner of the mask's bounding box, so that the result does not depend on where in
    the latent a region lies. The last ones are cut at the latent's border. Arguments as [`proposed`]; nothing is
    random.
    """
    top, _, left, _ = _bounds(mask)
    part = inverted[None, :, top:, left:]
    rows, columns = part.shape[-2:]
    counts = torch.nn.functional.avg_pool2d(part, DOWNSCALE_FACTOR, ceil_mode=True, count_include_pad=False)
    for axis in (-2, -1):
        counts = counts.repeat_interleave(DOWNSCALE_FACTOR, dim=axis)
    coarse = inverted.clone()
    coarse[:, top:, left:] = counts[0, :, :rows, :columns]
    return torch.where(mask, coarse, inverted)


def rotate(
    inverted: torch.Tensor,
    clean: torch.Tensor,
    mask: torch.Tensor,
    level: NoiseLevel,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """
    Turn the inverted latent inside the mask by 90° counter-clockwise about the centre of the mask's bounding box (Menn
    et al., §5.2).

    Each latent pixel of the mask takes the value of the one that a quarter turn brings to its place. For a square box
    that is `torch.rot90` of the box. For other regions some of these places lie outside the mask, and the inverted
    latent there is what comes in; places beyond the latent are mirrored into it. Arguments as [`proposed`]; nothing
    is random.
    """
    height, width = mask.shape
    top, bottom, left, right = _bounds(mask)
    rows, columns = mask.nonzero().T
    # Twice the offsets from the centre are whole numbers. Where a box's sides differ by an odd number, the quarter
    # turn of a pixel's centre falls on a corner of pixels, and the one above or to the left of it is taken.
    across, down = 2 * columns - (left + right), 2 * rows - (top + bottom)
    source_rows = _mirrored((top + bottom + across).div(2, rounding_mode="floor"), height)
    source_columns = _mirrored((left + right - down).div(2, rounding_mode="floor"), width)
    turned = inverted.clone()
    turned[:, rows, columns] = inverted[:, source_rows, source_columns]
    return turned


def _averaged(latents: torch.Tensor, axis: int) -> torch.Tensor:
    """Average latents of shape `(1, channels, height, width)` along an axis with a Gaussian."""
    radius = min(int(3 * BLUR_SIGMA), latents.shape[axis] - 1)
    offsets = torch.arange(-radius, radius + 1, dtype=latents.dtype, device=latents.device)
    weights = torch.exp(-0.5 * (offsets / BLUR_SIGMA) ** 2)
    weights /= weights.sum()
    moved = latents.movedim(axis, -1)
    padded = torch.nn.functional.pad(moved, (radius, radius, 0, 0), mode="reflect")
    return (padded.unfold(-1, 2 * radius + 1, 1) * weights).sum(-1).movedim(-1, axis)


def _bounds(mask: torch.Tensor) -> tuple[int, int, int, int]:
    """Return first and last row, first and last column of a mask."""
    rows, columns = (mask.any(axis).nonzero() for axis in (1, 0))
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


def _mirrored(indices: torch.Tensor, length: int) -> torch.Tensor:
    """Reflect indices at both ends of an axis, without repeating its first and last entry, as often as needed."""
    period = max(2 * (length - 1), 1)
    folded = indices % period
    return torch.minimum(folded, period - folded).clamp(max=length - 1)


CORRUPTIONS: dict[str, Corruption] = {
    "proposed": proposed,
    "blur": blur,
    "downscale": downscale,
    "rotate": rotate,
    "gaussian": gaussian,
}
"""Corruptions by name."""
