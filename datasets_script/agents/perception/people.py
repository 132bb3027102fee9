"""People and their parts, found offline on a CPU by MediaPipe's models: faces, hands, bodies and outlines."""

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


# Long side that photographs are reduced to before anything is found; masks are enlarged again.
_WORKING_SIDE = 1024

# A smaller face, as a share of the long side, belongs to a person of under 1 % of the image.
_MIN_FACE_SHARE = 0.03

# Share of a body that the outline of all people must hold: 0.67 and more where it is right, near 0 where it is not.
_MIN_AGREEMENT = 0.5

# What is needed to believe in a person whose face is not seen: the detector's score, the pose model's and the share
# above. Buildings and food reach one or two of them.
_FACELESS_DETECTION, _FACELESS_BODY, _FACELESS_AGREEMENT = 0.7, 0.95, 0.7

# Share of the smaller of two bodies that both hold where they are one and the same.
_MAX_SHARED = 0.5

# The same places in the face mesh and among a body's points, outer corners of eyes and mouth and the nose, and how far
# apart they may be, in sizes of the face: for it to be the face of that body, and for the body's limbs to be believed.
_FACE_POINTS = (263, 33, 1, 291, 61)
_BODY_POINTS = (3, 6, 0, 9, 10)
_MAX_MISMATCH, _GOOD_MATCH = 0.5, 0.2

_WRISTS = (15, 16)
_TURNS = (0.0, np.pi / 2, -np.pi / 2, np.pi)


@dataclass(eq=False)
class _Person:
    """A body, its face if that is seen, and its hands."""

    body: Body
    face: Landmarks | None = None
    hands: list[Landmarks] = field(default_factory=list)

    @property
    def mismatch(self) -> float:
        """How far the face's eyes, nose and mouth are from the body's, in sizes of the face; 0 without a face."""
        if self.face is None:
            return 0.0
        offsets = self.face.points[list(_FACE_POINTS)] - self.body.landmarks.points[list(_BODY_POINTS)]
        return float(np.linalg.norm(offsets, axis=1).mean() / self.face.size)

    @property
    def is_certain(self) -> bool:
        return self.face is not None and self.mismatch < _GOOD_MATCH

    def wrist_distance(self, hand: Landmarks) -> float:
        """From a hand's wrist to the nearer one of the body's, in sizes of the hand."""
        offsets = self.body.landmarks.points[list(_WRISTS)] - hand.points[0]
        return float(np.linalg.norm(offsets, axis=1).min() / hand.size)


class PeoplePerception(PerceptionAgent):
    """
    People with their faces, eyes, eyebrows, noses, mouths, hands, fingers, arms, legs and feet, without annotation,
    accelerator or network: about a second per photograph on one thread of a CPU, with equal results each time.

    Faces (BlazeFace), bodies (BlazePose) and palms (MediaPipe Hands) are looked for in the whole photograph and in
    overlapping tiles of half its size, and in turned views where nobody is found upright for certain. Each face leads
    to its body. A person's mask is where the body's own segmentation and the finer outline of all people agree. A
    pixel belongs to one person only, where bodies overlap to the smaller one, so masks of people who touch meet at a
    border and share the patches along it. Parts are drawn from landmarks and clipped to that mask; there are none of
    ears, whose place is known but not whether hair covers it.

    Animals with flat faces, statues and paintings may count as people.

    Args:
        max_people (`int`, defaults to 8): The most people of one photograph, those with the largest faces.
        min_score (`float`, defaults to 0.5): Least score of a detection, and of a body's landmarks.
        min_visibility (`float`, defaults to 0.8): Least visibility of all joints of a limb.

    Raises:
        ImportError: the extra `people` or the wheel with the models is not installed.
        PerceptionModelError: a model's file is not that of the wheel named.
    """

    def __init__(self, max_people: int = 8, min_score: float = 0.5, min_visibility: float = 0.8) -> None:
        self.max_people = max_people
        self.min_score = min_score
        self.min_visibility = min_visibility
        self._finder = PeopleFinder(min_score)

    def __reduce__(self) -> tuple[Any, ...]:
        # Interpreters do not travel between processes; each loads its own in 0.2 s.
        return type(self), (self.max_people, self.min_score, self.min_visibility)

    def perceive(self, image: Image.Image, source_id: str) -> Perception:
        """
        The people of an image, largest first.

        Args:
            image (`PIL.Image.Image`): RGB, upright where possible.
            source_id (`str`): Unused.

        Returns:
            `Perception`: In pixels of `image`. Parts of one kind share a name (two of `"eye"`); the caption counts
            people.

        Raises:
            PerceptionError: no person found.
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
        """People in the first turn that shows one of them for certain, or else in the first that shows any."""
        uncertain: list[_Person] = []
        for turn in _TURNS:
            people = self._find_turned(image, turn)
            if any(person.is_certain for person in people):
                return people
            uncertain = uncertain or people
        return uncertain

    def _find_turned(self, image: Image.Image, turn: float) -> list[_Person]:
        """People in views turned by `turn`; those without a face only upright."""
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
        """The person that fits a face best, of the body below it and those detected about it; none if none fits."""
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
        """The person with all parts, in the pixels of an image of `size` `(width, height)`."""
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
    """The whole of an image, and squares of half its long side that overlap by half."""
    side = max(size) / 2
    columns, rows = (_centers(length, side) for length in size)
    tiles = [Roi((x, y), side, turn) for y in rows for x in columns]
    return [Roi((size[0] / 2, size[1] / 2), 2 * side, turn), *tiles]


def _centers(length: float, side: float) -> list[float]:
    """Centres of the least number of tiles that overlap by half or more, or of one tile where it suffices."""
    if length <= side:
        return [length / 2]
    return [float(center) for center in np.linspace(side / 2, length - side / 2, int(np.ceil(2 * length / side)) - 1)]


def _masks(people: list[_Person]) -> list[tuple[_Person, np.ndarray]]:
    """Each person's mask, largest first; nobody without pixels."""
    soft = np.stack([_blurred(person.body) for person in people])
    # Where bodies hold the same pixels it is the smaller one that is in front: a child on a lap.
    by_size = np.argsort((soft > 0.5).sum(axis=(1, 2)), kind="stable")
    claimed = soft[by_size] > 0.5
    owner = np.where(claimed.any(axis=0), by_size[claimed.argmax(axis=0)], soft.argmax(axis=0))
    masks = [(person, (person.body.outline + soft[i] > 1.0) & (owner == i)) for i, person in enumerate(people)]
    return sorted((pair for pair in masks if pair[1].any()), key=lambda pair: -int(pair[1].sum()))


def _blurred(body: Body) -> np.ndarray:
    """A body's coarse map with softer borders, which the finer outline then decides."""
    radius = 0.02 * float(np.sqrt(body.mask.sum()))
    picture = Image.fromarray(np.round(255 * body.probability).astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) / 255


def _enlarged(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """
    A mask at a larger size. Only around its box is anything written: the rest of a fresh array takes no memory, and
    there are dozens of masks of large photographs.
    """
    if (mask.shape[1], mask.shape[0]) == size or not mask.any():
        return mask
    scale = np.array(size) / mask.shape[::-1]
    box = np.array(bbox_of_mask(mask)).reshape(2, 2)
    low = np.maximum(np.floor((box[0] - 1) * scale), 0).astype(int)
    high = np.minimum(np.ceil((box[1] + 1) * scale), size).astype(int)
    window = (*(low / scale), *(high / scale))
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    picture = picture.resize(tuple(high - low), Image.Resampling.BILINEAR, box=window)
    enlarged = np.zeros(size[::-1], dtype=bool)
    enlarged[low[1] : high[1], low[0] : high[0]] = np.asarray(picture) > 127
    return enlarged


def _caption(people: int) -> str:
    numbers = ("a person", "two people", "three people", "four people")
    return f"a photograph of {numbers[people - 1] if people <= len(numbers) else 'people'}"


def load(spec: PerceptionSpec, source: Path, vlm: VLM | None, device: str | None) -> PeoplePerception:
    """Load the backend; see [`~datasets_script.agents.perception.backends.PerceptionSpec.load`]."""
    return PeoplePerception()
