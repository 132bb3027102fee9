"""Proportions of the species, and creatures with random pose and proportions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from tests.benchmarks.creatures.scene import (
    EYE,
    HORN,
    INNER_EAR,
    MOUTH,
    NOSE,
    PUPIL,
    SIDE,
    Layer,
    Part,
    PartName,
    Scene,
    Side,
)
from tests.benchmarks.creatures.shapes import Oval, Point, Polygon, Shape
from tests.benchmarks.creatures.words import COLOURS, Words


@dataclass(frozen=True)
class Body:
    """Proportions of a species in px at scale 1, relative to the centre of the head, for the right side."""

    head: Oval
    ear: Shape
    inner_ear: Shape
    eye: Oval
    pupil: float
    nose: Shape
    mouth: Oval | None
    drop: float  # of the head's centre below the picture's, so that ears fit in


def _triangle(*corners: Point, rounding: float) -> Polygon:
    return Polygon(corners, rounding)


BODIES = {
    "bear": Body(
        head=Oval((0, 0), (19, 17.5)),
        ear=Oval((14.5, -14), (7.6, 7.6)),
        inner_ear=Oval((15, -15), (4.3, 4.3)),
        eye=Oval((8, -2.5), (4.6, 5)),
        pupil=2.5,
        nose=Oval((0, 5), (3.8, 2.9)),
        mouth=Oval((0, 11.8), (6, 2.3)),
        drop=4,
    ),
    "bunny": Body(
        head=Oval((0, 0), (17, 15.5)),
        ear=Oval((10.5, -20.5), (5.2, 14), angle=0.17),
        inner_ear=Oval((10.8, -22), (2.7, 9.4), angle=0.17),
        eye=Oval((7.4, -1.5), (4.4, 5)),
        pupil=2.5,
        nose=Oval((0, 5), (2.7, 2.3)),
        mouth=Oval((0, 10), (4.6, 2.3)),
        drop=9,
    ),
    "cat": Body(
        head=Oval((0, 0), (20, 16.5), power=2.3),
        ear=_triangle((17.2, -7), (17.2, -24), (5, -14), rounding=2),
        inner_ear=_triangle((15.2, -14.5), (15.4, -19.5), (11, -15.5), rounding=1.8),
        eye=Oval((8.6, -2), (4.9, 4.7)),
        pupil=2.5,
        nose=_triangle((-2.6, 4.4), (2.6, 4.4), (0, 6.8), rounding=1),
        mouth=Oval((0, 11), (6.4, 2.2)),
        drop=5,
    ),
    "mouse": Body(
        head=Oval((0, 0), (17, 17), taper=0.3),
        ear=Oval((15.8, -12.5), (9.3, 9.3)),
        inner_ear=Oval((16.4, -13.2), (6, 6)),
        eye=Oval((7.2, -2.5), (4.4, 4.8)),
        pupil=2.5,
        nose=Oval((0, 6.5), (3.1, 2.7)),
        mouth=Oval((0, 12), (4.2, 2)),
        drop=4,
    ),
    "owl": Body(
        head=Oval((0, 0), (18.5, 18), power=3.2),
        ear=_triangle((17, -10), (18, -26), (5.5, -16), rounding=1.8),
        inner_ear=_triangle((15.4, -17), (16.2, -22.4), (10.5, -18.4), rounding=1.4),
        eye=Oval((8.6, -3), (6, 6.4)),
        pupil=3,
        nose=_triangle((-3.2, 5), (3.2, 5), (0, 11), rounding=1),
        mouth=None,
        drop=5,
    ),
}
# Tip and base of a horn, relative to where it grows on the forehead.
_HORN = _triangle((-2.2, 0), (2.2, 0), (0, -9), rounding=1)
_HORN_HEIGHT = 0.62  # of the head's height above its centre
_BOTH: tuple[Side, ...] = ("left", "right")
_HORN_SPREAD: dict[int, tuple[tuple[Side, float], ...]] = {
    0: (),
    1: (("middle", 0.0),),
    2: (("left", -5.2), ("right", 5.2)),
}


@dataclass(frozen=True)
class _Pose:
    """Where a creature is, and how its proportions differ from its species'."""

    centre: Point
    scale: float
    spread: float  # px by which ears and eyes are further apart
    gaze: Point  # px
    sizes: dict[str, float]  # factors by part
    lift: float  # px by which the face is higher

    @classmethod
    def drawn(cls, body: Body, draw: Callable[[float, float], float]) -> _Pose:
        """Draw a pose with a function that chooses between a lower and an upper limit."""
        return cls(
            centre=(SIDE / 2 + draw(-2.5, 2.5), SIDE / 2 + 1 + body.drop + draw(-2, 2)),
            scale=draw(0.94, 1.06),
            spread=draw(-0.6, 0.6),
            gaze=(draw(-0.9, 0.9), draw(-0.9, 0.9)),
            sizes={name: draw(0.94, 1.06) for name in ("ear", "head", "horn", "eye", "nose", "mouth")},
            lift=draw(-0.6, 0.6),
        )

    def place(self, name: PartName, side: Side, layers: tuple[Layer, ...], dx: float = 0, dy: float = 0) -> Part:
        """Place a part that is drawn for the right side or the middle, on its side."""
        sized = Part(name, side, layers).scaled(self.sizes[name])
        shifted = sized.moved(dx, dy)
        turned = shifted.mirrored() if side == "left" else shifted
        return turned.scaled(self.scale, (0, 0)).moved(*self.centre)


def make_scene(words: Words, generator: np.random.Generator) -> Scene:
    """
    Make a creature with random pose and proportions.

    Args:
        words (`Words`): What it has to be.
        generator (`np.random.Generator`): Source of randomness.
    """
    return _scene(words, generator.uniform)


def neutral_scene(words: Words) -> Scene:
    """Make a creature with average pose and proportions."""
    return _scene(words, lambda low, high: (low + high) / 2)


def _scene(words: Words, draw: Callable[[float, float], float]) -> Scene:
    body = BODIES[words.species]
    pose = _Pose.drawn(body, draw)
    return Scene(words, pose.centre, pose.scale, tuple(_parts(words, body, pose)))


def _parts(words: Words, body: Body, pose: _Pose) -> Iterator[Part]:
    """Yield parts from back to front."""
    fur = COLOURS[words.colour]
    ear = Layer("ear", body.ear, fur, outlined=True, shaded=True), Layer("inner_ear", body.inner_ear, INNER_EAR)
    for side in _BOTH:
        yield pose.place("ear", side, ear, pose.spread)
    yield pose.place("head", "middle", (Layer("head", body.head, fur, outlined=True, shaded=True),))
    for side, x in _HORN_SPREAD[words.horns]:
        horn = (Layer("horn", _HORN, HORN, outlined=True),)
        yield pose.place("horn", side, horn, abs(x), -_HORN_HEIGHT * body.head.radii[1])
    for side in _BOTH:
        yield _eye(body, pose, side)
    yield pose.place("nose", "middle", (Layer("nose", body.nose, NOSE, outlined=True),), dy=-pose.lift)
    if body.mouth:
        yield pose.place("mouth", "middle", (Layer("mouth", body.mouth, MOUTH, outlined=True),), dy=-pose.lift)


def _eye(body: Body, pose: _Pose, side: Side) -> Part:
    """Both pupils look the same way, so the gaze is not mirrored with the eye."""
    sideways = -pose.gaze[0] if side == "left" else pose.gaze[0]
    pupil = Oval(body.eye.centre, (body.pupil, body.pupil)).moved(sideways, pose.gaze[1])
    layers = Layer("eye", body.eye, EYE, outlined=True), Layer("pupil", pupil, PUPIL)
    return pose.place("eye", side, layers, pose.spread, -pose.lift)
