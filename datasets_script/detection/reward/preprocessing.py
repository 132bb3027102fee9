"""What a reward model sees of an image: one function for training, inference and gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

from ...utils.errors import ArgumentError, check_at_least
from ..pixel.preprocessing import Preprocessing


@dataclass(frozen=True, eq=False)
class RewardInput:
    """
    Input of a [`~datasets_script.detection.reward.network.RewardNetwork`].

    Attributes:
        pixel_values (`torch.Tensor` of shape `(batch, views, 3, height, width)`): Normalized views of the images.
        inside (`torch.Tensor` of shape `(batch, views, height, width)`, `bool`): Which pixels show the image.
    """

    pixel_values: torch.Tensor
    inside: torch.Tensor


@dataclass(frozen=True)
class RewardPreprocessing:
    """
    The steps from an image to the input of a network: its views, each resized, normalized and padded.

    Args:
        view (`Preprocessing`, *optional*): What is done to a view.
        tiles (`int`, *optional*, defaults to 1): With 1, the view is the whole image; with k, the whole image and each
            of k×k tiles are views.

    Raises:
        ArgumentError: `tiles` is below 1.
    """

    view: Preprocessing = field(default_factory=Preprocessing)
    tiles: int = 1

    def __post_init__(self) -> None:
        check_at_least("tiles", self.tiles)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> RewardPreprocessing:
        """
        Read the output of [`to_dict`].

        Raises:
            ArgumentError: A field is unknown, missing, or not as described.
        """
        if "tiles" not in content:
            raise ArgumentError(f"`preprocessing` must have the field tiles, got {', '.join(sorted(content))}")
        view = {name: value for name, value in content.items() if name != "tiles"}
        return cls(Preprocessing.from_dict(view), content["tiles"])

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, JSON-serialisable."""
        return {**self.view.to_dict(), "tiles": self.tiles}

    def __call__(self, images: torch.Tensor) -> RewardInput:
        """
        Make the input of a network from images of one size. Gradients pass to the images.

        Args:
            images (`torch.Tensor` of shape `(batch, 3, height, width)`): RGB in [0, 1], floats of any precision.

        Raises:
            ValueError: `images` does not have three channels, is not of floats, or has fewer pixels than tiles.
        """
        made = [self.view(view) for view in self._views(images)]
        height, width = (max(pixels.shape[axis] for pixels, _ in made) for axis in (2, 3))
        pixels, inside = [], []
        for values, geometry in made:
            edges = (0, width - values.shape[3], 0, height - values.shape[2])
            pixels.append(functional.pad(values, edges, value=self.view.padding))
            inside.append(functional.pad(geometry.inside(), edges).to(images.device))
        return RewardInput(torch.stack(pixels, 1), torch.stack(inside).expand(len(images), -1, -1, -1))

    def _views(self, images: torch.Tensor) -> Iterator[torch.Tensor]:
        yield images
        if self.tiles == 1:
            return
        if min(images.shape[2:]) < self.tiles:
            raise ValueError(f"`images` must have at least {self.tiles} pixels a side, got {tuple(images.shape)}")
        rows, columns = (
            [round(index * side / self.tiles) for index in range(self.tiles + 1)] for side in images.shape[2:]
        )
        for top, bottom in zip(rows, rows[1:], strict=False):
            for left, right in zip(columns, columns[1:], strict=False):
                yield images[:, :, top:bottom, left:right]
