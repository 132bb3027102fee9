"""Shapes whose distance to every pixel is known, so that they are drawn with smooth edges and measured exactly."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np


Point = tuple[float, float]


def pixel_centres(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of the centres of all pixels of a square picture, each of shape `(side, side)`."""
    y, x = np.mgrid[0:side, 0:side] + 0.5
    return x, y


class Shape(Protocol):
    """A region of the plane, in pixels, y downwards."""

    @property
    def centre(self) -> Point:
        """A point in its middle."""

    @property
    def reach(self) -> float:
        """A distance from the centre, in px, beyond which there is nothing of it."""

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """
        Compute the signed distance of points to the outline in px, negative inside; exact near the outline.

        Args:
            x, y (`np.ndarray` of shape `(height, width)`): A grid of points 1 px apart, as [`pixel_centres`] makes it.
        """

    def moved(self, dx: float, dy: float) -> Shape:
        """Return the shape, moved."""

    def scaled(self, factor: float, about: Point | None = None) -> Shape:
        """Return the shape, enlarged about a point, its centre by default."""

    def mirrored(self) -> Shape:
        """Return the shape with left and right exchanged about x = 0."""


@dataclass(frozen=True)
class Oval:
    """
    Superellipse `|u / rx| ** n + |v / ry| ** n = 1` in coordinates that are turned by `angle`.

    Args:
        centre (`tuple[float, float]`): Centre.
        radii (`tuple[float, float]`): Half axes.
        power (`float`, *optional*, defaults to 2.0): Exponent `n`; 2 is an ellipse, more is nearer to a rectangle.
        taper (`float`, *optional*, defaults to 0.0): How much narrower it is below than above, as a share of `rx`.
        angle (`float`, *optional*, defaults to 0.0): Clockwise turn in radians.
    """

    centre: Point
    radii: Point
    power: float = 2.0
    taper: float = 0.0
    angle: float = 0.0

    @property
    def reach(self) -> float:
        return float(np.hypot(self.radii[0] * (1 + 1.5 * self.taper), self.radii[1]))

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        dx, dy = x - self.centre[0], y - self.centre[1]
        u, v = cos * dx + sin * dy, cos * dy - sin * dx
        # One where the outline is; its own gradient turns the excess over one into px.
        width = self.radii[0] * (1 - self.taper * np.clip(v / self.radii[1], -1.5, 1.5))
        u, v = u / width, v / self.radii[1]
        level = (
            np.hypot(u, v) if self.power == 2 else (abs(u) ** self.power + abs(v) ** self.power) ** (1 / self.power)
        )
        slope_y, slope_x = np.gradient(level)
        return (level - 1) / np.maximum(np.hypot(slope_x, slope_y), 1e-3)

    def moved(self, dx: float, dy: float) -> Oval:
        return replace(self, centre=(self.centre[0] + dx, self.centre[1] + dy))

    def scaled(self, factor: float, about: Point | None = None) -> Oval:
        centre = _scaled(self.centre, factor, about or self.centre)
        return replace(self, centre=centre, radii=(self.radii[0] * factor, self.radii[1] * factor))

    def mirrored(self) -> Oval:
        return replace(self, centre=(-self.centre[0], self.centre[1]), angle=-self.angle)


@dataclass(frozen=True)
class Polygon:
    """
    Polygon with rounded corners.

    Args:
        corners (`tuple[tuple[float, float], ...]`): Corners before rounding, in order.
        rounding (`float`, *optional*, defaults to 1.0): Radius by which the polygon is enlarged, with round corners.
    """

    corners: tuple[Point, ...]
    rounding: float = 1.0

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        nearest, inside = np.full(x.shape, np.inf), np.zeros(x.shape, bool)
        for (ax, ay), (bx, by) in zip(self.corners, self.corners[1:] + self.corners[:1], strict=True):
            ex, ey = bx - ax, by - ay
            along = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
            nearest = np.minimum(nearest, np.hypot(x - ax - along * ex, y - ay - along * ey))
            crosses = (ay > y) != (by > y)
            if ay != by:
                inside ^= crosses & (x < ax + (y - ay) * ex / ey)
        return np.where(inside, -nearest, nearest) - self.rounding

    @property
    def reach(self) -> float:
        return max(float(np.hypot(x - self.centre[0], y - self.centre[1])) for x, y in self.corners) + self.rounding

    @property
    def centre(self) -> Point:
        xs, ys = zip(*self.corners, strict=True)
        return sum(xs) / len(xs), sum(ys) / len(ys)

    def moved(self, dx: float, dy: float) -> Polygon:
        return replace(self, corners=tuple((x + dx, y + dy) for x, y in self.corners))

    def scaled(self, factor: float, about: Point | None = None) -> Polygon:
        corners = tuple(_scaled(corner, factor, about or self.centre) for corner in self.corners)
        return Polygon(corners, self.rounding * factor)

    def mirrored(self) -> Polygon:
        return replace(self, corners=tuple((-x, y) for x, y in self.corners))


def _scaled(point: Point, factor: float, about: Point) -> Point:
    return about[0] + factor * (point[0] - about[0]), about[1] + factor * (point[1] - about[1])
