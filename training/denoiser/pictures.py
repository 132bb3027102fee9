"""Pictures of fixed prompts and seeds, by which a training is judged while it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torchvision.utils import make_grid

from datasets_script.utils.files import replacing
from training.denoiser.rollout import Conditions, Denoiser


@dataclass(frozen=True, eq=False)
class Pictures:
    """
    Images of fixed prompts and seeds, drawn with the weights of some step.

    Attributes:
        images (`torch.Tensor` of shape `(pictures, 3, height, width)`): In [0, 1], on the CPU.
        prompts (`tuple[str, ...]`): Prompt of each.
        seeds (`tuple[int, ...]`): Seed of each one's noise.
    """

    images: torch.Tensor
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]

    def as_pil(self) -> list[Image.Image]:
        """Return the images as 8-bit RGB, as a user gets them."""
        levels = (self.images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        return [Image.fromarray(pixels) for pixels in levels]

    def write_sheet(self, path: Path) -> None:
        """Write a sheet of the images as a PNG, as many side by side as below one another."""
        sheet = make_grid(self.images, nrow=max(1, round(len(self.images) ** 0.5)), padding=2, pad_value=1.0)
        pixels = (sheet * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        with replacing(path) as temporary:
            Image.fromarray(pixels).save(temporary, format="PNG")


@dataclass(frozen=True, eq=False)
class PictureSet:
    """
    What the pictures of a run are drawn of. It is the same at each step, so that pictures are compared in pairs.

    Args:
        prompts (`tuple[str, ...]`): Prompt of each picture.
        seeds (`tuple[int, ...]`): Seed of each one's noise.
        conditions (`Conditions`): The prompts, encoded.
        clean (`torch.Tensor` of shape `(pictures, channels, height, width)`, *optional*): Latents of images to start
            from, for a denoiser with `start_sigma`.
        batch_size (`int`, *optional*, defaults to 4): Pictures at a time.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    conditions: Conditions
    clean: torch.Tensor | None = None
    batch_size: int = 4

    @torch.no_grad()
    def draw(self, denoiser: Denoiser) -> Pictures:
        """Draw them with the denoiser's weights."""
        drawn = []
        for first in range(0, len(self.prompts), self.batch_size):
            rows = range(len(self.prompts))[first : first + self.batch_size]
            clean = None if self.clean is None else self.clean[rows.start : rows.stop].to(denoiser.device)
            start = denoiser.start(denoiser.noise([self.seeds[row] for row in rows]), clean)
            drawn.append(denoiser.decode(denoiser.rollout(start, self.conditions.select(rows))).cpu())
        return Pictures(torch.cat(drawn), self.prompts, self.seeds)
