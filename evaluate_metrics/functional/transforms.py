"""What X-AIGD's detectors see of an image: resized, with its centre cut out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .regions import Size


@dataclass(frozen=True)
class Transform:
    """
    Resizing of an image, then a cut of its centre.

    Attributes:
        side (`int`): Side after resizing, px.
        keeps_aspect (`bool`): Whether `side` is the shorter side and the other one follows; else both get `side`.
        crop (`int`): Side of the square that is cut out, px.
    """

    side: int
    keeps_aspect: bool
    crop: int

    def __call__(self, mask: np.ndarray) -> np.ndarray:
        """
        Transform a mask of shape `(height, width)` to `(crop, crop)`. It is resized to the nearest pixel by upper left
        corners, as OpenCV does.
        """
        height, width = mask.shape
        new_width, new_height = self._resized((width, height))
        rows, columns = (np.arange(new) * old // new for new, old in ((new_height, height), (new_width, width)))
        x, y = self._corner((new_width, new_height))
        return mask[np.ix_(rows[y : y + self.crop], columns[x : x + self.crop])]

    def view(self, image: Image.Image) -> Image.Image:
        """Cut the same part out of an image, resized smoothly, for figures."""
        size = self._resized(image.size)
        x, y = self._corner(size)
        return image.resize(size).crop((x, y, x + self.crop, y + self.crop))

    def _resized(self, size: Size) -> Size:
        if not self.keeps_aspect:
            return self.side, self.side
        width, height = (side * self.side // min(size) for side in size)
        return width, height

    def _corner(self, size: Size) -> tuple[int, int]:
        return (size[0] - self.crop) // 2, (size[1] - self.crop) // 2


TRANSFORMS = {
    "resize256-crop224": Transform(256, keeps_aspect=False, crop=224),
    "resize518-crop518": Transform(518, keeps_aspect=True, crop=518),
}
