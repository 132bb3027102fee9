"""
Augmentation of labelled images. What is done to an image is drawn once and applied to both halves of a pair: if it
differed, or if only one half were compressed, blurred or shrunk, that would tell them apart.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from training.pixel.losses import OUTSIDE


GREY = 127
"""Level of the surroundings of an image that was shrunk: the mean, which the network's padding has too."""

Range = tuple[float, float]


@dataclass(frozen=True)
class Ranges:
    """
    Ranges that an augmentation is drawn from, each uniformly.

    Attributes:
        window (`tuple[float, float]`): Sides of the window that is cut out, as a multiple of the image's. Above 1 the
            image is shrunk and padded.
        color (`float`): Largest relative change of brightness, contrast and saturation.
        quality (`tuple[float, float]`): JPEG quality.
        blur (`tuple[float, float]`): Standard deviation of a Gaussian in pixels.
        resize (`tuple[float, float]`): Scale that the image is reduced to and enlarged from again.
        share (`float`): Share of the images to which each of JPEG, blur and resize is applied.
    """

    window: Range
    color: float
    quality: Range
    blur: Range
    resize: Range
    share: float


STANDARD = Ranges((0.7, 1.25), 0.2, (50, 95), (0.3, 1.0), (0.6, 1.0), 0.35)
STRONG = Ranges((0.5, 1.4), 0.4, (30, 90), (0.5, 1.8), (0.4, 1.0), 0.6)
# DiffDoctor §3.2: an image without artifacts is shrunk, so that small, complex regions that are fine are seen too.
SHRINK = Ranges((1.5, 3.0), 0.0, (95, 95), (0.3, 0.3), (1.0, 1.0), 0.0)


@dataclass(frozen=True)
class Augmentation:
    """
    Changes of an image, in the order in which they are made.

    Attributes:
        flip (`bool`): Whether left and right are swapped.
        window (`float`): Sides of the window, as a multiple of the image's; its aspect ratio is the image's.
        place (`tuple[float, float]`): Where the window lies, from 0 (left, top) to 1 (right, bottom).
        brightness, contrast, saturation (`float`): Factors; 1 changes nothing.
        resize (`float`, *optional*): Scale that the image is reduced to and enlarged from again.
        blur (`float`, *optional*): Standard deviation of a Gaussian in pixels.
        quality (`int`, *optional*): JPEG quality.
    """

    flip: bool = False
    window: float = 1.0
    place: tuple[float, float] = (0.5, 0.5)
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    resize: float | None = None
    blur: float | None = None
    quality: int | None = None

    @classmethod
    def draw(cls, ranges: Ranges, seed: int) -> Augmentation:
        """
        Draw an augmentation.

        Args:
            ranges (`Ranges`): What to draw from: `STANDARD`, `STRONG` or `SHRINK`.
            seed (`int`): Seed; equal seeds give equal augmentations.
        """
        rng = np.random.default_rng(seed)
        brightness, contrast, saturation = rng.uniform(1 - ranges.color, 1 + ranges.color, 3).tolist()
        used = (rng.random(3) < ranges.share).tolist()
        resize, blur, quality = (rng.uniform(*bounds) for bounds in (ranges.resize, ranges.blur, ranges.quality))
        return cls(
            flip=bool(rng.random() < 0.5),
            window=float(rng.uniform(*ranges.window)),
            place=(float(rng.random()), float(rng.random())),
            brightness=brightness,
            contrast=contrast,
            saturation=saturation,
            resize=resize if used[0] else None,
            blur=blur if used[1] else None,
            quality=round(quality) if used[2] else None,
        )

    def showing(self, label: torch.Tensor, seed: int) -> Augmentation:
        """
        Return this augmentation with a window that shows a pixel of a label, at any place within the window. A window
        that is as large as the image shows all of it, and an empty label leaves the place as it is.

        Args:
            label (`torch.Tensor` of shape `(height, width)`): Label in [0, 1].
            seed (`int`): Seed of the choice of the pixel and of its place in the window.
        """
        marked = (label >= 0.5).nonzero()
        if self.window >= 1 or not len(marked):
            return self
        rng = np.random.default_rng(seed)
        row, column = (int(value) for value in marked[rng.integers(len(marked))])
        if self.flip:
            column = label.shape[1] - 1 - column
        places = []
        for position, side in ((column, label.shape[1]), (row, label.shape[0])):
            length = max(1, round(side * self.window))
            first, last = max(0, position - length + 1), min(position, side - length)
            places.append(int(rng.integers(first, last + 1)) / max(1, side - length))
        return replace(self, place=(places[0], places[1]))

    def __call__(self, image: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Augment an image and its label alike.

        Args:
            image (`torch.Tensor` of shape `(3, height, width)`, `uint8`): RGB.
            label (`torch.Tensor` of shape `(height, width)`, floats in [0, 1]): Its label.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: Image and label of the window. Where it reaches beyond the image, the
            image is [`GREY`] and the label is [`~training.pixel.losses.OUTSIDE`].
        """
        pixels, mask = tv_tensors.Image(image), tv_tensors.Mask(label[None])
        if self.flip:
            pixels, mask = functional.horizontal_flip(pixels), functional.horizontal_flip(mask)
        return self._look(self._window(pixels, GREY)), self._window(mask, OUTSIDE)[0].as_subclass(torch.Tensor)

    def _window(self, values: torch.Tensor, fill: float) -> torch.Tensor:
        """Cut out the window, after padding if it reaches beyond the image."""
        if self.window == 1:
            return values
        height, width = values.shape[-2:]
        rows, columns = (max(1, round(side * self.window)) for side in (height, width))
        more = [max(0, wanted - side) for wanted, side in ((columns, width), (rows, height))]
        before = [round(place * extra) for place, extra in zip(self.place, more, strict=True)]
        after = [extra - first for extra, first in zip(more, before, strict=True)]
        padded = functional.pad(values, [*before, *after], fill=fill)
        height, width = padded.shape[-2:]
        left, top = round(self.place[0] * (width - columns)), round(self.place[1] * (height - rows))
        return functional.crop(padded, top, left, rows, columns)

    def _look(self, image: torch.Tensor) -> torch.Tensor:
        """Change what does not move pixels."""
        if self.resize is not None and self.resize < 1:
            size = list(image.shape[-2:])
            reduced = [max(1, round(side * self.resize)) for side in size]
            image = functional.resize(functional.resize(image, reduced, antialias=True), size, antialias=True)
        if self.blur is not None:
            image = functional.gaussian_blur(image, 2 * round(2 * self.blur) + 1, self.blur)
        for change, factor in (
            (functional.adjust_brightness, self.brightness),
            (functional.adjust_contrast, self.contrast),
            (functional.adjust_saturation, self.saturation),
        ):
            if factor != 1:
                image = change(image, factor)
        if self.quality is not None:
            image = _compressed(image, self.quality)
        return image.as_subclass(torch.Tensor)


def _compressed(image: torch.Tensor, quality: int) -> torch.Tensor:
    """Return an image as JPEG leaves it."""
    buffer = io.BytesIO()
    functional.to_pil_image(image).save(buffer, format="JPEG", quality=quality)
    return functional.pil_to_tensor(Image.open(buffer))
