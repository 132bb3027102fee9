"""Masks of a person's parts, from the landmarks of MediaPipe's face mesh, hand and pose models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw


Shape = tuple[int, int]
Point = tuple[float, float]

# Vertices of the face mesh around each part.
_FACE_OVAL = (
    (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377)
    + (152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)
)  # fmt: skip
_EYES = ((33, 133, 159, 145, 158, 153, 160, 144), (263, 362, 386, 374, 385, 380, 387, 373))
_EYEBROWS = ((46, 53, 52, 65, 55, 70, 63, 105, 66, 107), (276, 283, 282, 295, 285, 300, 293, 334, 296, 336))
_MOUTH = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
_NOSE = (6, 122, 351, 196, 419, 198, 420, 49, 279, 48, 278, 64, 294, 98, 327, 97, 326, 2, 4, 1)

# Landmarks of a hand: the wrist, then four from root to tip of each finger, the thumb first.
_PALM = (0, 1, 2, 5, 9, 13, 17)
_FINGERS = ((1, 2, 3, 4), (5, 6, 7, 8), (9, 10, 11, 12), (13, 14, 15, 16), (17, 18, 19, 20))
_HAND_BASE, _HAND_MIDDLE = 0, 9

# Landmarks of the body, the left side; the right side's are one higher.
_SHOULDER, _ELBOW, _WRIST, _HIP, _KNEE, _ANKLE, _HEEL, _TOES = 11, 13, 15, 23, 25, 27, 29, 31


@dataclass(frozen=True, eq=False)
class Landmarks:
    """
    Points of a face (468), a hand (21) or a body (33).

    Attributes:
        points (`np.ndarray` of shape `(count, 2)`): `(x, y)` in pixels.
        score (`float`): Probability that the face, hand or body is there.
        visibility (`np.ndarray` of shape `(count,)`): Probability that each point is visible; 1 for faces and hands.
    """

    points: np.ndarray
    score: float
    visibility: np.ndarray

    @property
    def size(self) -> float:
        """Return the long side of the points' bounding box in pixels."""
        return float(np.ptp(self.points, axis=0).max())


@dataclass(frozen=True, eq=False)
class PartRegion:
    """Name, `bool` mask and score of a part."""

    name: str
    mask: np.ndarray
    score: float


def hull(shape: Shape, points: np.ndarray, radius: float = 0.0) -> np.ndarray:
    """
    Draw the convex hull of discs.

    Args:
        shape (`tuple[int, int]`): `(height, width)` of the mask.
        points (`np.ndarray` of shape `(count, 2)`): Centres of the discs, in pixels.
        radius (`float`, *optional*, defaults to 0.0): Radius of all discs, in pixels.

    Returns:
        `np.ndarray` of shape `(height, width)`, `bool`.
    """
    turns = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    circle = radius * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    corners = _convex((np.asarray(points)[:, None] + circle).reshape(-1, 2))
    image = Image.new("1", (shape[1], shape[0]))
    # Pillow's drawing coordinates are those of pixel centres.
    ImageDraw.Draw(image).polygon([(x - 0.5, y - 0.5) for x, y in corners], fill=1)
    return np.asarray(image)


def face_regions(face: Landmarks, shape: Shape) -> Iterator[PartRegion]:
    """Yield the face, eyes with their lids, eyebrows, nose and mouth."""
    points = face.points
    yield PartRegion("face", hull(shape, points[list(_FACE_OVAL)]), face.score)
    for eye, brow in zip(_EYES, _EYEBROWS, strict=True):
        width = float(np.linalg.norm(points[eye[0]] - points[eye[1]]))
        yield PartRegion("eye", hull(shape, points[list(eye)], 0.16 * width), face.score)
        yield PartRegion("eyebrow", hull(shape, points[list(brow)], 0.06 * width), face.score)
    width = float(np.linalg.norm(points[_EYES[0][0]] - points[_EYES[1][0]]))
    yield PartRegion("nose", hull(shape, points[list(_NOSE)], 0.03 * width), face.score)
    yield PartRegion("mouth", hull(shape, points[list(_MOUTH)], 0.03 * width), face.score)


def hand_regions(hand: Landmarks, shape: Shape) -> list[PartRegion]:
    """Return the hand, then its thumb and fingers."""
    points = hand.points
    # The longer of the palm's two sides: one of them is foreshortened if the hand is seen edge on.
    palm = max(
        float(np.linalg.norm(points[_HAND_MIDDLE] - points[_HAND_BASE])),
        1.4 * float(np.linalg.norm(points[5] - points[17])),
    )
    fingers = [_chain(shape, points[list(joints)], 0.1 * palm) for joints in _FINGERS]
    whole = np.logical_or.reduce([hull(shape, points[list(_PALM)], 0.12 * palm), *fingers])
    names = ("thumb", "finger", "finger", "finger", "finger")
    regions = [PartRegion(name, mask, hand.score) for name, mask in zip(names, fingers, strict=True)]
    return [PartRegion("hand", whole, hand.score), *regions]


def limb_regions(body: Landmarks, person: np.ndarray, min_visibility: float) -> list[PartRegion]:
    """
    Return upper arms, forearms, legs and feet that are visible from end to end: the pixels of a person that are nearer
    to a limb's bone than to the other limbs and the trunk, measured in widths of each.

    Args:
        body (`Landmarks`): Points of the body.
        person (`np.ndarray` of shape `(height, width)`, `bool`): Mask of the person.
        min_visibility (`float`): Least visibility of all joints of a limb, in [0, 1].
    """
    rows, columns = np.nonzero(person)
    pixels = np.stack([columns, rows], axis=1).astype(np.float32) + 0.5
    bones = list(_bones(trunk_length(body.points)))
    distances = np.stack([_distance(pixels, body.points[list(joints)]) / width for _, joints, width in bones])
    nearest = distances.argmin(axis=0)
    trunk = hull(person.shape, body.points[[_SHOULDER, _SHOULDER + 1, _HIP + 1, _HIP]])
    reach = np.where(trunk[rows, columns], 1.0, 1.5)
    believed = _believed_joints(body, person.shape, min_visibility)
    regions = []
    for index, (name, joints, _) in enumerate(bones):
        if believed[list(joints)].all():
            own = (nearest == index) & (distances[index] <= reach)
            mask = np.zeros(person.shape, dtype=bool)
            mask[rows[own], columns[own]] = True
            regions.append(PartRegion(name, mask, body.score * float(body.visibility[list(joints)].min())))
    return regions


def _believed_joints(body: Landmarks, shape: Shape, min_visibility: float) -> np.ndarray:
    """
    Return which joints are visible and in the image. An elbow is not trusted if the wrist should be in the image but
    is not visible: both were guessed then.
    """
    inside = np.all((body.points >= 0) & (body.points <= (shape[1], shape[0])), axis=1)
    seen = body.visibility >= min_visibility
    believed = np.logical_and(inside, seen)
    for side in (0, 1):
        believed[_ELBOW + side] &= seen[_WRIST + side] or not inside[_WRIST + side]
    return believed


def _bones(size: float) -> Iterator[tuple[str, tuple[int, ...], float]]:
    """Yield name, joints and half width of each limb of a body with a trunk of `size`."""
    for side in (0, 1):
        yield "arm", (_SHOULDER + side, _ELBOW + side), 0.13 * size
        yield "forearm", (_ELBOW + side, _WRIST + side), 0.1 * size
        yield "leg", (_HIP + side, _KNEE + side, _ANKLE + side), 0.17 * size
        yield "foot", (_HEEL + side, _TOES + side), 0.12 * size


def trunk_length(points: np.ndarray) -> float:
    """Estimate the distance from shoulders to hips, from the shoulders' width if it is foreshortened."""
    shoulders, hips = points[[_SHOULDER, _SHOULDER + 1]], points[[_HIP, _HIP + 1]]
    return max(
        float(np.linalg.norm(shoulders.mean(axis=0) - hips.mean(axis=0))),
        1.3 * float(np.linalg.norm(shoulders[0] - shoulders[1])),
    )


def _chain(shape: Shape, joints: np.ndarray, radius: float) -> np.ndarray:
    return np.logical_or.reduce([hull(shape, joints[i : i + 2], radius) for i in range(len(joints) - 1)])


def _distance(pixels: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """
    Compute the distance of each pixel `(count, 2)` from a chain of joints, threefold beyond its ends: a shoulder is no
    arm.
    """
    distances = []
    for start, end in zip(joints[:-1], joints[1:], strict=True):
        length = max(float(np.linalg.norm(end - start)), 1e-3)
        along = ((end - start) / length).astype(np.float32)
        offsets = pixels - start.astype(np.float32)
        position = offsets @ along
        nearest = np.clip(position, 0, length)
        squares = ((offsets - nearest[:, None] * along) ** 2).sum(axis=1)
        distances.append(np.sqrt(squares + 8 * (position - nearest) ** 2))
    return np.minimum.reduce(distances)


def _convex(points: np.ndarray) -> list[Point]:
    """Return the corners of the convex hull, in order around it, by Andrew's monotone chain."""
    ordered: list[Point] = sorted((float(x), float(y)) for x, y in points)
    return [*_half_hull(ordered)[:-1], *_half_hull(ordered[::-1])[:-1]]


def _half_hull(points: list[Point]) -> list[Point]:
    chain: list[Point] = []
    for point in points:
        while len(chain) > 1 and _turn(chain[-2], chain[-1], point) <= 0:
            chain.pop()
        chain.append(point)
    return chain


def _turn(first: Point, second: Point, third: Point) -> float:
    """Return a positive number if the path over three points bends towards the second axis."""
    return (second[0] - first[0]) * (third[1] - first[1]) - (second[1] - first[1]) * (third[0] - first[0])
