"""A creature as a list of parts, from which pictures are rendered and in which artifacts are planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from tests.benchmarks.creatures.shapes import Point, Shape
from tests.benchmarks.creatures.words import Colour, Words


SIDE = 64
PartName = Literal["ear", "head", "horn", "eye", "nose", "mouth"]
Side = Literal["left", "middle", "right"]

# Colours that belong to one kind of part alone, by which the oracle knows them.
EYE, PUPIL, NOSE = (252, 252, 248), (25, 22, 35), (240, 130, 30)
MOUTH, INNER_EAR, HORN = (185, 25, 70), (250, 150, 200), (250, 215, 60)


@dataclass(frozen=True)
class Layer:
    """
    One shape of one colour.

    Args:
        name (`str`): What it is, such as `"pupil"`.
        shape (`Shape`): Where it is.
        colour (`tuple[int, int, int]`): RGB.
        outlined (`bool`, *optional*, defaults to `False`): Whether a darker line runs around it.
        shaded (`bool`, *optional*, defaults to `False`): Whether light falls on it from above.
    """

    name: str
    shape: Shape
    colour: Colour
    outlined: bool = False
    shaded: bool = False


@dataclass(frozen=True)
class Part:
    """
    A part of a creature, drawn as layers from back to front.

    Args:
        name (`str`): Kind of part.
        side (`str`): Which one of a pair, as seen in the picture, or `"middle"`.
        layers (`tuple[Layer, ...]`): Its layers.
    """

    name: PartName
    side: Side
    layers: tuple[Layer, ...]

    @property
    def centre(self) -> Point:
        """Centre of the layer that is furthest back."""
        return self.layers[0].shape.centre

    def moved(self, dx: float, dy: float) -> Part:
        """Return the part, moved."""
        return self._with(lambda shape: shape.moved(dx, dy))

    def scaled(self, factor: float, about: Point | None = None) -> Part:
        """Return the part, enlarged about a point, its centre by default."""
        return self._with(lambda shape: shape.scaled(factor, about or self.centre))

    def mirrored(self) -> Part:
        """Return the part with left and right exchanged about x = 0."""
        return self._with(lambda shape: shape.mirrored())

    def _with(self, change: Callable[[Shape], Shape]) -> Part:
        return replace(self, layers=tuple(replace(layer, shape=change(layer.shape)) for layer in self.layers))


@dataclass(frozen=True)
class Scene:
    """
    A creature before its background.

    Args:
        words (`Words`): What it was made for.
        centre (`tuple[float, float]`): Centre of the head in px.
        scale (`float`): Size, about 1.
        parts (`tuple[Part, ...]`): Parts from back to front.
    """

    words: Words
    centre: Point
    scale: float
    parts: tuple[Part, ...]

    def without(self, part: Part) -> Scene:
        """Return the scene without a part."""
        return replace(self, parts=tuple(one for one in self.parts if one is not part))

    def exchanged(self, part: Part, other: Part) -> Scene:
        """Return the scene with another part in the place of one."""
        return replace(self, parts=tuple(other if one is part else one for one in self.parts))

    def named(self, name: str) -> list[Part]:
        """Return the parts of a kind."""
        return [part for part in self.parts if part.name == name]
