"""What a pixel detector sees of an image: one function for training, inference and gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch.nn import functional

from ...utils.errors import ArgumentError, check_at_least, check_choice


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

SIDES = ("long", "short")

Shape = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """
    How an image lies in the input of a network: resized, at the top left, with padding to the right and below.

    Attributes:
        image (`tuple[int, int]`): Height and width of the image.
        content (`tuple[int, int]`): Height and width of the resized image.
        input (`tuple[int, int]`): Height and width of the network's input.
    """

    image: Shape
    content: Shape
    input: Shape

    def fit(self, maps: torch.Tensor) -> torch.Tensor:
        """
        Bring maps of the image into the input: resize them as the image is resized, and pad them with zeros.

        Args:
            maps (`torch.Tensor` of shape `(batch, height, width)`): Values of the image's pixels, floats.

        Returns:
            `torch.Tensor` of shape `(batch, input height, input width)`. A pixel of a resized mask holds the share of
            its area that the mask covers; [`inside`] tells the padding from an empty mask.

        Raises:
            ValueError: The maps do not have the size of the image.
        """
        _check_shape("maps", maps, self.image)
        return _padded(_resized(maps[:, None], self.content), self.input, 0.0)[:, 0]

    def restore(self, maps: torch.Tensor) -> torch.Tensor:
        """
        Bring maps of the input back to the image: cut off the padding, and resize what is left. Gradients pass.

        Args:
            maps (`torch.Tensor` of shape `(batch, input height, input width)`): Values of the input's pixels.

        Returns:
            `torch.Tensor` of shape `(batch, height, width)`.

        Raises:
            ValueError: The maps do not have the size of the input.
        """
        _check_shape("maps", maps, self.input)
        height, width = self.content
        return _resized(maps[:, None, :height, :width], self.image)[:, 0]

    def inside(self) -> torch.Tensor:
        """Return which pixels of the input show the image, `bool` of shape `(input height, input width)`."""
        inside = torch.zeros(self.input, dtype=torch.bool)
        inside[: self.content[0], : self.content[1]] = True
        return inside


@dataclass(frozen=True)
class Preprocessing:
    """
    The steps from an image to the input of a network. The image is resized so that one of its sides has a given
    length, with its aspect ratio kept and nothing cropped, then normalized and padded.

    Args:
        length (`int`, *optional*, defaults to 512): Length in pixels that `side` is resized to, up or down.
        side (`str`, *optional*, defaults to `"long"`): Which side has this length, one of `SIDES`.
        multiple (`int`, *optional*, defaults to 32): Height and width are padded to a multiple of this. With `side`
            `"long"` and `multiple` equal to `length`, all inputs are squares of one size.
        mean, std (`tuple[float, float, float]`, *optional*): Mean and standard deviation of each channel that images
            are normalized with; by default ImageNet's.
        padding (`float`, *optional*, defaults to 0.0): Value of the padding, after normalization; 0 is the mean.

    Raises:
        ArgumentError: A value is not as described.
    """

    length: int = 512
    side: str = "long"
    multiple: int = 32
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    padding: float = 0.0

    def __post_init__(self) -> None:
        check_at_least("length", self.length)
        check_at_least("multiple", self.multiple)
        check_choice("side", self.side, SIDES)
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != 3:
                raise ArgumentError(f"`{name}` must be three numbers, one a channel, got {values}")
        if min(self.std) <= 0:
            raise ArgumentError(f"`std` must be above 0 in each channel, got {self.std}")

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Preprocessing:
        """
        Read the output of [`to_dict`].

        Raises:
            ArgumentError: A field is unknown, missing, or not as described.
        """
        names = {field.name for field in fields(cls)}
        if content.keys() != names:
            wanted = ", ".join(sorted(names))
            raise ArgumentError(f"`preprocessing` must have the fields {wanted}, got {', '.join(sorted(content))}")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
        }
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, JSON-serialisable."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def geometry(self, image: Shape) -> Geometry:
        """
        Compute how an image lies in the input.

        Args:
            image (`tuple[int, int]`): Height and width of the image in pixels.
        """
        scale = self.length / (max(image) if self.side == "long" else min(image))
        height, width = (max(1, round(side * scale)) for side in image)
        padded = tuple(-(-side // self.multiple) * self.multiple for side in (height, width))
        return Geometry(image, (height, width), (padded[0], padded[1]))

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, Geometry]:
        """
        Make the input of a network from images. Gradients pass to the images.

        Args:
            images (`torch.Tensor` of shape `(batch, 3, height, width)`): RGB in [0, 1], floats of any precision.

        Returns:
            `tuple[torch.Tensor, Geometry]`: Input of shape `(batch, 3, input height, input width)`, and how the images
            lie in it.

        Raises:
            ValueError: `images` does not have three channels or is not of floats.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                "`images` must be floats of shape (batch, 3, height, width), got "
                f"{images.dtype} of shape {tuple(images.shape)}"
            )
        geometry = self.geometry((images.shape[2], images.shape[3]))
        mean, std = (_as_channels(values, images) for values in (self.mean, self.std))
        normalized = (_resized(images, geometry.content) - mean) / std
        return _padded(normalized, geometry.input, self.padding), geometry


def _resized(values: torch.Tensor, shape: Shape) -> torch.Tensor:
    if values.shape[2:] == shape:
        return values
    return functional.interpolate(values, shape, mode="bilinear", align_corners=False, antialias=True)


def _padded(values: torch.Tensor, shape: Shape, padding: float) -> torch.Tensor:
    below, right = shape[0] - values.shape[2], shape[1] - values.shape[3]
    return functional.pad(values, (0, right, 0, below), value=padding)


def _as_channels(values: Sequence[float], images: torch.Tensor) -> torch.Tensor:
    return images.new_tensor(values).view(1, 3, 1, 1)


def _check_shape(name: str, maps: torch.Tensor, shape: Shape) -> None:
    if maps.ndim != 3 or tuple(maps.shape[1:]) != shape:
        raise ValueError(f"`{name}` must be of shape (batch, {shape[0]}, {shape[1]}), got {tuple(maps.shape)}")
