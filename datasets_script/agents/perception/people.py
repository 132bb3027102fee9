"""
Perception of people and their parts, offline on a CPU, with MediaPipe's models of faces, hands, bodies and outlines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from diffusers_artifact.tools import bbox_of_mask

from ...schema.perception import Entity, Part, Perception
from ...vlm.base import VLM
from .annotations import part_level
from .backends import PerceptionSpec
from .base import PerceptionAgent, PerceptionError
from .blaze import WHEEL, BlazeDetection, Roi
from .people_landmarks import MODELS, Body, PeopleFinder, body_region, region_below, wrist_regions
from .people_parts import Landmarks, PartRegion, face_regions, hand_regions, limb_regions


# Long side to which photos are reduced for detection; masks are enlarged again.
_WORKING_SIDE = 1024

# Least size of a face, as a share of the long side. A smaller one belongs to a person of under 1 % of the image.
_MIN_FACE_SHARE = 0.03

# Least share of a body that must lie within the outline of all people; for a wrong body it is near 0.
_MIN_AGREEMENT = 0.5

# Thresholds for a person without a visible face: the detector's score, the pose model's, and the share above.
# Buildings and food reach one or two of them.
_FACELESS_DETECTION, _FACELESS_BODY, _FACELESS_AGREEMENT = 0.7, 0.95, 0.7

# Above this shared part of the smaller body, two bodies are one and the same.
_MAX_SHARED = 0.5

# The same points in the face mesh and in a body: outer corners of the eyes and the mouth, and the nose. Then the
# greatest mean distance between the two, in sizes of the face, at which the face belongs to the body, and at which the
# body's limbs are trusted.
_FACE_POINTS = (263, 33, 1, 291, 61)
_BODY_POINTS = (3, 6, 0, 9, 10)
_MAX_MISMATCH, _GOOD_MATCH = 0.5, 0.2

_WRISTS = (15, 16)
_TURNS = (0.0, np.pi / 2, -np.pi / 2, np.pi)


@dataclass(eq=False)
class _Person:
    """A body, its face if visible, and its hands."""

    body: Body
    face: Landmarks | None = None
    hands: list[Landmarks] = field(default_factory=list)

    @property
    def mismatch(self) -> float:
        """
        Return the mean distance of the face's eyes, nose and mouth from the body's, in sizes of the face; 0 without a
        face.
        """
        if self.face is None:
            return 0.0
        offsets = self.face.points[list(_FACE_POINTS)] - self.body.landmarks.points[list(_BODY_POINTS)]
        return float(np.linalg.norm(offsets, axis=1).mean() / self.face.size)

    @property
    def is_certain(self) -> bool:
        return self.face is not None and self.mismatch < _GOOD_MATCH

    def wrist_distance(self, hand: Landmarks) -> float:
        """Return the distance of a hand's wrist from the nearer one of the body's, in sizes of the hand."""
        offsets = self.body.landmarks.points[list(_WRISTS)] - hand.points[0]
        return float(np.linalg.norm(offsets, axis=1).min() / hand.size)


class PeoplePerception(PerceptionAgent):
    """
    People with their faces, eyes, eyebrows, noses, mouths, hands, fingers, arms, legs and feet, found without
    annotations, GPU or network. It runs on one thread of a CPU and gives equal results each time.

    Faces (BlazeFace), bodies (BlazePose) and palms (MediaPipe Hands) are detected in the whole photo and in
    overlapping tiles of half its size, and in rotated views if nobody is found upright for certain. Each face leads to
    its body. A person's mask is where the body's own segmentation and the finer outline of all people agree. A pixel
    belongs to one person only, where bodies overlap to the smaller one, so masks of people who touch meet at a border
    and share the patches along it. Parts are drawn from landmarks and clipped to that mask. There are no ears: their
    place is known, but not whether hair covers them.

    Animals with flat faces, statues and paintings may count as people.

    Args:
        max_people (`int`, *optional*, defaults to 8): Maximum number of people in one photo, those with the largest
            faces.
        min_score (`float`, *optional*, defaults to 0.5): Least score of a detection, and of a body's landmarks.
        min_visibility (`float`, *optional*, defaults to 0.8): Least visibility of all joints of a limb.

    Raises:
        ImportError: The extra `people` or the wheel with the models is not installed.
        PerceptionModelError: A model's file is not that of the expected wheel.
    """

    def __init__(self, max_people: int = 8, min_score: float = 0.5, min_visibility: float = 0.8) -> None:
        self.max_people = max_people
        self.min_score = min_score
        self.min_visibility = min_visibility
        self._finder = PeopleFinder(min_score)

    def __reduce__(self) -> tuple[Any, ...]:
        # Interpreters cannot be pickled; each process loads its own.
        return type(self), (self.max_people, self.min_score, self.min_visibility)

    def perceive(self, image: Image.Image, source_id: str) -> Perception:
        """
        Find the people in an image, largest first.

        Args:
            image (`PIL.Image.Image`): RGB, upright if possible.
            source_id (`str`): Unused.

        Returns:
            `Perception`: In pixels of `image`. Parts of one kind share a name (two of `"eye"`); the caption counts
            people.

        Raises:
            PerceptionError: No person is found.
        """
        working = image.convert("RGB")
        working.thumbnail((_WORKING_SIDE, _WORKING_SIDE), Image.Resampling.BOX)
        people = self._find(working)
        if not people:
            raise PerceptionError("no person found")
        identifiers = count(1)
        entities = [self._entity(person, mask, image.size, identifiers) for person, mask in _masks(people)]
        return Perception(entities=tuple(entities), caption=_caption(len(entities)))

    def identity(self) -> dict[str, Any]:
        return {
            "backend": "people",
            "wheel": WHEEL,
            "models": {name: file.sha256 for name, file in MODELS.items()},
            "max_people": self.max_people,
            "min_score": self.min_score,
            "min_visibility": self.min_visibility,
        }

    def _find(self, image: Image.Image) -> list[_Person]:
        """
        Return people in the first rotation that shows one of them for certain, or else in the first that shows any.
        """
        uncertain: list[_Person] = []
        for turn in _TURNS:
            people = self._find_turned(image, turn)
            if any(person.is_certain for person in people):
                return people
            uncertain = uncertain or people
        return uncertain

    def _find_turned(self, image: Image.Image, turn: float) -> list[_Person]:
        """Return people in views rotated by `turn`; those without a face only upright."""
        views = _views(image.size, turn)
        detections = self._finder.detect_bodies(image, views)
        people = []
        for face in self._finder.faces(image, views)[: self.max_people]:
            if face.size > _MIN_FACE_SHARE * max(image.size):
                people += self._with_face(image, face, detections)
        if not turn:
            self._add_faceless(people, image, detections)
        if people:
            wrists = [region for person in people for region in wrist_regions(person.body.landmarks)]
            for hand in self._finder.hands(image, [*views, *wrists]):
                owner = min(people, key=lambda person: person.wrist_distance(hand))
                if owner.wrist_distance(hand) < 1:
                    owner.hands.append(hand)
        return people

    def _with_face(self, image: Image.Image, face: Landmarks, detections: list[BlazeDetection]) -> list[_Person]:
        """
        Return the person that fits a face best, of the body below it and those detected around it; none if none fits.
        """
        center = face.points.mean(axis=0)
        about = [one for one in detections if float(np.linalg.norm(one.middle - center)) < face.size]
        people: list[_Person] = []
        for region in (region_below(face), *map(body_region, about)):
            body = self._finder.body(image, region)
            if body is not None and body.agreement > _MIN_AGREEMENT:
                people.append(_Person(body, face))
                if people[-1].is_certain:
                    break
        best = min(people, key=lambda person: person.mismatch, default=None)
        return [best] if best is not None and best.mismatch < _MAX_MISMATCH else []

    def _add_faceless(self, people: list[_Person], image: Image.Image, detections: list[BlazeDetection]) -> None:
        for detection in detections:
            if detection.score < _FACELESS_DETECTION or len(people) == self.max_people:
                break
            body = self._finder.body(image, body_region(detection))
            if body is None or any(body.shared(person.body) > _MAX_SHARED for person in people):
                continue
            if body.landmarks.score > _FACELESS_BODY and body.agreement > _FACELESS_AGREEMENT:
                people.append(_Person(body))

    def _entity(self, person: _Person, mask: np.ndarray, size: tuple[int, int], identifiers: count[int]) -> Entity:
        """Return the person with all parts, in pixels of an image of `size` `(width, height)`."""
        identifier = next(identifiers)
        parts = []
        for region in self._regions(person, mask):
            pixels = _enlarged(region.mask & mask, size)
            if pixels.any():
                level = part_level(region.name)
                box = bbox_of_mask(pixels)
                parts.append(Part(region.name, next(identifiers), box, pixels, region.score, identifier, level))
        pixels = _enlarged(mask, size)
        score = person.body.landmarks.score
        return Entity("person", identifier, bbox_of_mask(pixels), pixels, score, tuple(parts))

    def _regions(self, person: _Person, mask: np.ndarray) -> Iterator[PartRegion]:
        in_front = np.zeros_like(mask)
        if person.face is not None:
            face, *features = face_regions(person.face, mask.shape)
            yield from (face, *features)
            in_front |= face.mask
        for landmarks in person.hands:
            hand, *fingers = hand_regions(landmarks, mask.shape)
            yield from (hand, *fingers)
            in_front |= hand.mask
        if person.mismatch < _GOOD_MATCH:
            yield from limb_regions(person.body.landmarks, mask & ~in_front, self.min_visibility)


def _views(size: tuple[int, int], turn: float) -> list[Roi]:
    """Return the whole of an image, and squares of half its long side that overlap by half."""
    side = max(size) / 2
    columns, rows = (_centers(length, side) for length in size)
    tiles = [Roi((x, y), side, turn) for y in rows for x in columns]
    return [Roi((size[0] / 2, size[1] / 2), 2 * side, turn), *tiles]


def _centers(length: float, side: float) -> list[float]:
    """Return centres of the fewest tiles that overlap by half or more, or of a single one if it suffices."""
    if length <= side:
        return [length / 2]
    return [float(center) for center in np.linspace(side / 2, length - side / 2, int(np.ceil(2 * length / side)) - 1)]


def _masks(people: list[_Person]) -> list[tuple[_Person, np.ndarray]]:
    """Return each person's mask, largest first; nobody without pixels."""
    soft = np.stack([_blurred(person.body) for person in people])
    # Where bodies overlap, the smaller one is in front: a child on a lap.
    by_size = np.argsort((soft > 0.5).sum(axis=(1, 2)), kind="stable")
    claimed = soft[by_size] > 0.5
    owner = np.where(claimed.any(axis=0), by_size[claimed.argmax(axis=0)], soft.argmax(axis=0))
    masks = [(person, (person.body.outline + soft[i] > 1.0) & (owner == i)) for i, person in enumerate(people)]
    return sorted((pair for pair in masks if pair[1].any()), key=lambda pair: -int(pair[1].sum()))


def _blurred(body: Body) -> np.ndarray:
    """Soften the border of a body's coarse map, so that the finer outline decides it."""
    radius = 0.02 * float(np.sqrt(body.mask.sum()))
    image = Image.fromarray(np.round(255 * body.probability).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) / 255


def _enlarged(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """
    Enlarge a mask to `size`. Only the pixels around its box are written: the rest of a fresh array takes no memory,
    and a large photo has dozens of masks.
    """
    if (mask.shape[1], mask.shape[0]) == size or not mask.any():
        return mask
    scale = np.array(size) / mask.shape[::-1]
    box = np.array(bbox_of_mask(mask)).reshape(2, 2)
    low = np.maximum(np.floor((box[0] - 1) * scale), 0).astype(int)
    high = np.minimum(np.ceil((box[1] + 1) * scale), size).astype(int)
    window = (*(low / scale), *(high / scale))
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    image = image.resize(tuple(high - low), Image.Resampling.BILINEAR, box=window)
    enlarged = np.zeros(size[::-1], dtype=bool)
    enlarged[low[1] : high[1], low[0] : high[0]] = np.asarray(image) > 127
    return enlarged


def _caption(people: int) -> str:
    numbers = ("a person", "two people", "three people", "four people")
    return f"a photograph of {numbers[people - 1] if people <= len(numbers) else 'people'}"


def load(spec: PerceptionSpec, source: Path, vlm: VLM | None, device: str | None) -> PeoplePerception:
    """Load the backend; see [`~datasets_script.agents.perception.backends.PerceptionSpec.load`]."""
    return PeoplePerception()
