"""Perception from COCO-format annotation files: COCO, PACO, PartImageNet, and files for one's own photos."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, count, takewhile
from pathlib import Path, PurePosixPath
from typing import Any, get_args

import numpy as np
from PIL import Image

from diffusers_artifact.tools import bbox_of_mask

from ...schema.perception import Entity, Part, PartLevel, Perception
from ...utils.photos import list_sources
from ...vlm.base import VLM
from .association import MIN_CONTAINMENT
from .backends import PerceptionSpec
from .base import PerceptionAgent, PerceptionError
from .foreign_formats import ForeignFormat, format_of_json, format_of_text
from .masks import decode_segmentation, disc, is_number, shorten, without_faint_polygons


logger = logging.getLogger(__name__)

# Last words of the names of distal parts with a clear contour (ArtiAgent §3); every other part is "intermediate".
PERIPHERAL_PARTS = frozenset(
    "hand finger thumb wrist foot toe ankle ear eye nose beak horn antler paw hoof claw tail fin flipper wing "
    "wheel tire tyre mirror handle spout pedal propeller antenna headlight taillight turnsignal button knob".split()
)

# PartImageNet's "Car Tier" and "Bicycle Tier".
_PARTIMAGENET_SPELLINGS = {"tier": "tire"}

# Radius of the disc drawn for a keypoint, as a share of the square root of its entity's box area: about the size of an
# eye socket in a portrait, or of a hand of a standing person.
_KEYPOINT_RADIUS = 0.08


# Ids that are equal as texts and as numbers; "01" is not 1.
_WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,17}")


class AnnotationError(PerceptionError):
    """An annotation file, or one of its annotations, is malformed; the message says where and how."""


class NoAnnotation(PerceptionError):
    """
    An image has no usable annotation. The message says what is missing and how to provide it.

    Attributes:
        source_id (`str`): Id of the image.
    """

    def __init__(self, source_id: str, reason: str) -> None:
        super().__init__(f"{source_id}: {reason}")
        self.source_id = source_id


@dataclass(frozen=True)
class _Category:
    """What annotations of a category are: an entity (`part` empty), or a part of an entity called `entity`."""

    entity: str
    part: str
    level: PartLevel | None
    optional: bool
    keypoints: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Region:
    """One annotation of one image, decoded; `mask` is empty if it only has a box."""

    id: int
    category: _Category
    mask: np.ndarray
    parent: int | None
    keypoints: list[float]
    where: str

    @property
    def is_part(self) -> bool:
        return self.parent is not None or bool(self.category.part)

    @property
    def part_name(self) -> str:
        return self.category.part or self.category.entity

    @property
    def level(self) -> PartLevel:
        return self.category.level or part_level(self.part_name)


@dataclass(eq=False)
class _Draft:
    """
    An entity whose parts are being collected; `region` is its annotation, `None` if only its parts are annotated.
    """

    id: int
    name: str
    region: _Region | None
    parts: list[_Region] = field(default_factory=list)

    def mask(self) -> np.ndarray:
        """Return its own pixels, or else those of all its parts; empty if there are neither."""
        if self.region is not None and (self.region.mask.any() or not self.parts):
            return self.region.mask
        return np.logical_or.reduce([part.mask for part in self.parts])


@dataclass(frozen=True)
class AnnotationSummary:
    """
    What an annotation file holds, by which a user can tell what artifacts it allows. Crowds are not counted.

    Attributes:
        images (`int`): Image entries with annotations.
        entities (`int`): Annotated entities; those that are only annotated by their parts are not counted.
        parts (`Mapping[str, int]`): Annotated parts and visible keypoints by level.
    """

    images: int
    entities: int
    parts: Mapping[PartLevel, int]

    def limits(self) -> str:
        """Say what the file does not allow, and what to do; empty if it holds parts of both levels."""
        if not self.images:
            return ""
        entities = "1 entity" if self.entities == 1 else f"{self.entities} entities"
        counts = f"{entities} in {self.images} image{'s' * (self.images != 1)}"
        if not any(self.parts.values()):
            return (
                f"{counts}, without any part, so that only fusions of two entities can be made; add parts with "
                "`parent_id` for the other artifacts, or use `perception` people, which finds parts of people by "
                "itself, or grounded-sam, for which a VLM names them"
            )
        if not self.parts["peripheral"]:
            return f"{counts}, without a peripheral part (hand, ear, wheel), so that nothing can be added or removed"
        if not self.parts["intermediate"]:
            return f"{counts}, without an intermediate part (arm, face, door), so that nothing can be distorted"
        return ""


def part_level(name: str) -> PartLevel:
    """Return the level of a part by the last word of its name: `"left ear"` is peripheral, `"door"` intermediate."""
    word = name.split()[-1]
    return "peripheral" if {word, word.removesuffix("s")} & PERIPHERAL_PARTS else "intermediate"


class AnnotationPerception(PerceptionAgent):
    """
    Entities and parts from a COCO-format JSON file. `segmentation` may be polygons or RLE, compressed or not.
    `iscrowd` annotations are skipped, and so are annotations that only have a box, unless their parts give them
    pixels. An image entry may hold a `caption`.

    Ids may be numbers here and texts there. A malformed annotation is left out by its id, the others are used.

    Parts are assigned to entities as follows:

    - *Your own files*: an annotation with `parent_id` is a part of the annotation with that `id`. Its category may
      have `level`, `"peripheral"` or `"intermediate"`; otherwise the name decides, see [`part_level`]. With
      `optional` true, the entity looks whole without the part, so that it is never removed.
    - *PACO*: categories named `"dog:ear"`, linked by `obj_ann_id`. Without a link (annotation tools can name
      categories but rarely write links) a part belongs to the instance of that name that holds 0.9 or more of its
      pixels; if there is none, the part is dropped.
    - *PartImageNet*: categories named `"Quadruped Head"` with supercategory `"Quadruped"`, if all of at least two
      categories of the supercategory are named so. It only annotates parts: if an image has no entity of the name, the
      entity is the union of all the image's parts of that name.
    - *COCO keypoints*: each visible one (`v` = 2) becomes a disc inside its entity, of radius 8 % of the square root
      of the entity's box area, unless the entity has an annotated part of the same name.

    Masks are decoded when an image is perceived, not when the file is read.

    Args:
        path (`str` or `pathlib.Path`): The file. An image is found by its full relative path, otherwise by its file
            name: paths of another machine or folder work too. Of several entries the one that shares the most folders
            at the end of its path is taken.
        source (`str` or `pathlib.Path`, *optional*): Folder of the photos. An entry whose own path exists there
            belongs to that photo alone, and one that several photos could claim by their file name to none of them.

    Raises:
        AnnotationError: The file is not in COCO format. [`perceive`] raises it if an image has no other annotations
            than malformed ones.
    """

    def __init__(self, path: str | Path, source: str | Path | None = None) -> None:
        self.path = Path(path)
        self.source = None if source is None else Path(source)
        document = self._load()
        self._categories = self._read_categories(document["categories"])
        self._entries_by_path: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._entries_by_name: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._entries_by_id: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for position, entry in enumerate(document["images"]):
            name = self._field(entry, "file_name", str, f"images[{position}]")
            name = _posix(name)
            identifier = self._field(entry, "id", (int, str), f"images[{position}]")
            self._entries_by_id[_key(identifier)].append(entry)
            self._entries_by_path[name].append(entry)
            self._entries_by_name[PurePosixPath(name).name].append(entry)
        self._annotations: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for position, annotation in enumerate(document["annotations"]):
            image_id = self._field(annotation, "image_id", (int, str), f"annotations[{position}]")
            self._annotations[_key(image_id)].append(annotation)

    def perceive(self, image: Image.Image, source_id: str) -> Perception:
        """
        Return the annotated entities of an image.

        Args:
            image (`PIL.Image.Image`): The image, upright, of the size it was annotated at.
            source_id (`str`): Its path relative to the source folder, with forward slashes.

        Returns:
            `Perception`: In pixels of `image`. `instance_id` is the annotation's `id`, or a new number for keypoints
            and for entities made of their parts. `notes` names the annotations that were left out because they, or
            what they are part of, are malformed.

        Raises:
            NoAnnotation: The file has no entry for the image, or no entity with pixels.
            AnnotationError: The image's entry is malformed, two of its annotations have one `id`, or nothing is usable
                because of malformed annotations.
        """
        entry = self._entry(source_id)
        self._check_size(entry, image)
        annotations = self._annotations.get(_key(entry["id"]), [])
        regions, faults = self._regions(annotations, (image.height, image.width))
        entities = _assemble(regions)
        if not entities:
            if faults:
                raise faults[0]
            raise NoAnnotation(source_id, self._nothing_usable(len(annotations)))
        if entry.get("caption"):
            caption = self._field(entry, "caption", str, f"image {entry['id']}")
        else:
            caption = _caption(entity.name for entity in entities)
        # Without the path, which is the same for all photos.
        notes = tuple(str(fault).removeprefix(f"{self.path}, ") for fault in faults)
        return Perception(entities=entities, caption=caption, notes=notes)

    def identity(self) -> dict[str, Any]:
        return {"backend": "annotations", "sha256": hashlib.sha256(self.path.read_bytes()).hexdigest()}

    def summary(self) -> AnnotationSummary:
        """Count what is annotated. Masks are not decoded, so malformed annotations, left out later, may count."""
        entities = 0
        parts: Counter[PartLevel] = Counter(dict.fromkeys(get_args(PartLevel), 0))
        used = [[one for one in annotations if not one.get("iscrowd")] for annotations in self._annotations.values()]
        for annotation in chain.from_iterable(used):
            category = self._categories.get(_key(annotation.get("category_id")))
            if category is None:
                continue
            parent = annotation.get("parent_id", annotation.get("obj_ann_id"))
            if category.part or (parent is not None and _key(parent) != _key(annotation.get("id"))):
                parts[category.level or part_level(category.part or category.entity)] += 1
                continue
            entities += 1
            keypoints = annotation.get("keypoints")
            visible = keypoints[2::3] if isinstance(keypoints, list) else []
            parts.update(part_level(name) for name, v in zip(category.keypoints, visible, strict=False) if v == 2)
        return AnnotationSummary(sum(map(bool, used)), entities, parts)

    def _load(self) -> dict[str, Any]:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            raise AnnotationError(f"{self.path}: must be a COCO-format JSON file, got no such file") from None
        except OSError as error:
            raise AnnotationError(f"{self.path}: must be a file that can be read, got: {error.strerror}") from error
        try:
            # From bytes, because Python then recognises UTF-8 with and without byte order mark, UTF-16 and UTF-32.
            document = json.loads(content)
        except RecursionError:
            raise AnnotationError(f"{self.path}: must be a COCO-format JSON file, got one nested too deeply") from None
        except ValueError as error:
            self._refuse_foreign(format_of_text(content))
            raise AnnotationError(f"{self.path}: must be a COCO-format JSON file, got no JSON: {error}") from error
        for key in ("images", "annotations", "categories"):
            records = document.get(key) if isinstance(document, dict) else None
            if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
                self._refuse_foreign(format_of_json(document))
                raise AnnotationError(f"{self.path}: `{key}` must be a list of objects, got {shorten(records)}")
        return document

    def _refuse_foreign(self, form: ForeignFormat | None) -> None:
        """Refuse a file of another annotation tool, with the way to convert it."""
        if form is not None:
            raise AnnotationError(f"{self.path}: must be a COCO-format JSON file, got {form.name}; {form.way}")

    def _field(self, record: dict[str, Any], key: str, kind: type | tuple[type, ...], where: str) -> Any:
        """Return `record[key]`, which must be of the type `kind`."""
        value = record.get(key)
        if not isinstance(value, kind):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            expected = " or ".join(one.__name__ for one in kinds)
            raise AnnotationError(f"{self.path}, {where}: `{key}` must be {expected}, got {shorten(value)}")
        return value

    def _read_categories(self, records: list[dict[str, Any]]) -> dict[str, _Category]:
        named_by_supercategory = _categories_named_by_supercategory(records)
        categories: dict[str, _Category] = {}
        for position, record in enumerate(records):
            where = f"categories[{position}]"
            identifier = self._field(record, "id", (int, str), where)
            name = self._field(record, "name", str, where)
            entity, colon, part = name.partition(":")
            supercategory = str(record.get("supercategory"))
            if (supercategory, name) in named_by_supercategory:
                entity, part = supercategory, name[len(supercategory) + 1 :]
                part = _PARTIMAGENET_SPELLINGS.get(part.lower(), part)
            entity, part = _clean(entity), _clean(part)
            if not entity or (colon and not part):
                raise AnnotationError(f"{self.path}, {where}: `name` must be 'entity' or 'entity:part', got {name!r}")
            if _key(identifier) in categories:
                raise AnnotationError(f"{self.path}, {where}: `id` must be unique, got {identifier!r} again")
            categories[_key(identifier)] = _Category(
                entity,
                part,
                self._level(record, where),
                self._optional(record, where),
                self._keypoint_names(record, where),
            )
        return categories

    def _keypoint_names(self, category: dict[str, Any], where: str) -> tuple[str, ...]:
        listed = category.get("keypoints")
        if listed is None:
            return ()
        names = tuple(_clean(str(name)) for name in listed) if isinstance(listed, list) else ()
        if not all(names) or not isinstance(listed, list):
            raise AnnotationError(f"{self.path}, {where}: `keypoints` must be a list of names, got {shorten(listed)}")
        return names

    def _level(self, category: dict[str, Any], where: str) -> PartLevel | None:
        level = category.get("level")
        if level is not None and level not in get_args(PartLevel):
            raise AnnotationError(f"{self.path}, {where}: `level` must be among {get_args(PartLevel)}, got {level!r}")
        return level

    def _optional(self, category: dict[str, Any], where: str) -> bool:
        optional = category.get("optional", False)
        if not isinstance(optional, bool):
            raise AnnotationError(f"{self.path}, {where}: `optional` must be true or false, got {shorten(optional)}")
        return optional

    @cached_property
    def _photos_by_name(self) -> dict[str, list[str]]:
        """Photos of the source folder by their file name; none if the folder is unknown."""
        photos: dict[str, list[str]] = defaultdict(list)
        for photo in list_sources(self.source) if self.source is not None else ():
            photos[PurePosixPath(photo).name].append(photo)
        return photos

    def _entry(self, source_id: str) -> dict[str, Any]:
        entries = self._entries_by_path.get(source_id) or self._entries_by_file_name(source_id)
        if not entries:
            raise NoAnnotation(
                source_id,
                f"no entry in {self.path.name}; add an image entry with this `file_name`, and annotations with "
                "`segmentation` for its entities and, with `parent_id`, for their parts",
            )
        if len(entries) > 1:
            raise AnnotationError(
                f"{self.path}: one image entry must match {source_id}, got {len(entries)}: {_listed(entries)}; "
                "use full relative paths as `file_name`, each once"
            )
        same_id = self._entries_by_id[_key(entries[0]["id"])]
        if len(same_id) > 1:
            raise AnnotationError(
                f"{self.path}: `id` of an image entry must be unique, got {len(same_id)}: {_listed(same_id)}; "
                "give each its own, and its annotations the same `image_id`"
            )
        return entries[0]

    def _entries_by_file_name(self, source_id: str) -> list[dict[str, Any]]:
        """Return the entries that share the file name of a photo and fit it as well as any other photo."""
        name = PurePosixPath(source_id).name
        photos = self._photos_by_name.get(name, [])
        fitting: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for entry in self._entries_by_name.get(name, ()):
            path = _posix(entry["file_name"])
            fit = _shared_folders(path, source_id)
            rivals = [photo for photo in photos if photo != source_id and _shared_folders(path, photo) >= fit]
            if path in photos or any(_shared_folders(path, photo) > fit for photo in rivals):
                continue
            if rivals:
                raise AnnotationError(
                    f"{self.path}, image {entry['id']}: `file_name` must belong to one photo, got {path!r} for "
                    f"{source_id} and {rivals[0]}; use the full relative path as `file_name`"
                )
            fitting[fit].append(entry)
        return fitting[max(fitting)] if fitting else []

    def _check_size(self, entry: dict[str, Any], image: Image.Image) -> None:
        width, height = entry.get("width"), entry.get("height")
        annotated = (image.width if width is None else width, image.height if height is None else height)
        if annotated != image.size:
            raise AnnotationError(
                f"{self.path}, image {entry['id']}: `width` and `height` must be those of {entry['file_name']} turned "
                f"upright, {image.size}, got {annotated}"
            )

    def _regions(
        self, annotations: list[dict[str, Any]], shape: tuple[int, int]
    ) -> tuple[dict[int, _Region], list[AnnotationError]]:
        """Decode the annotations of an image, by number, without crowds; say what is wrong with those left out."""
        numbers = self._numbers(annotations)
        regions: dict[int, _Region] = {}
        faults: list[AnnotationError] = []
        for annotation in annotations:
            if not annotation.get("iscrowd"):
                try:
                    region = self._region(annotation, shape, numbers, faults)
                except AnnotationError as error:
                    faults.append(error)
                else:
                    regions[region.id] = region
        crowds = {numbers.get(_key(annotation.get("id"))) for annotation in annotations if annotation.get("iscrowd")}
        orphans = set()
        for region in regions.values():
            try:
                _check_ancestors(region, regions, crowds)
            except AnnotationError as error:
                faults.append(error)
                orphans.add(region.id)
        return {number: region for number, region in regions.items() if number not in orphans}, faults

    def _numbers(self, annotations: list[dict[str, Any]]) -> dict[str, int]:
        """Return a whole number for the `id` of each annotation of an image: itself, or a new one for a text."""
        own = (annotation.get("id") for annotation in annotations if not annotation.get("iscrowd"))
        for key, uses in Counter(_key(identifier) for identifier in own if identifier is not None).items():
            if uses > 1:
                raise AnnotationError(f"{self.path}, annotation {key}: `id` must be unique, got it twice")
        ids = [annotation["id"] for annotation in annotations if isinstance(annotation.get("id"), (int, str))]
        numbers = {key: int(key) for key in map(_key, ids) if _WHOLE_NUMBER.fullmatch(key)}
        texts = dict.fromkeys(key for key in map(_key, ids) if key not in numbers)
        new = count(max(numbers.values(), default=0) + 1)
        return numbers | {text: next(new) for text in texts}

    def _region(
        self,
        annotation: dict[str, Any],
        shape: tuple[int, int],
        numbers: dict[str, int],
        faults: list[AnnotationError],
    ) -> _Region:
        """Decode an annotation. Polygons without area beside others are left out and named in `faults`."""
        where = f"{self.path}, annotation {annotation.get('id')}"
        identifier = numbers[_key(self._field(annotation, "id", (int, str), where))]
        category_id = self._field(annotation, "category_id", (int, str), where)
        if _key(category_id) not in self._categories:
            raise AnnotationError(f"{where}: `category_id` must be among `categories`, got {category_id!r}")
        category = self._categories[_key(category_id)]
        parent = self._parent(annotation, numbers, where)
        if category.level and not category.part and parent is None:
            raise AnnotationError(
                f"{where}: an annotation of the part category {category.entity!r} (which has `level`) must have "
                "`parent_id`, or its category a name like 'dog:ear', got neither"
            )
        segmentation, faint = without_faint_polygons(annotation.get("segmentation"))
        try:
            mask = decode_segmentation(segmentation, shape) if segmentation else np.zeros(shape, dtype=bool)
            keypoints = _check_keypoints(annotation.get("keypoints", []), category)
        except ValueError as error:
            raise AnnotationError(f"{where}: {error}") from error
        faults += [AnnotationError(f"{where}: {fault}") for fault in faint]
        return _Region(identifier, category, mask, parent, keypoints, where)

    def _parent(self, annotation: dict[str, Any], numbers: dict[str, int], where: str) -> int | None:
        parent = annotation.get("parent_id", annotation.get("obj_ann_id"))
        # PACO links an object to itself.
        if parent is None or _key(parent) == _key(annotation["id"]):
            return None
        if not isinstance(parent, (int, str)):
            raise AnnotationError(f"{where}: `parent_id` must be the id of an annotation, got {shorten(parent)}")
        if _key(parent) not in numbers:
            raise AnnotationError(f"{where}: the parent must be an annotation of the same image, got {parent!r}")
        return numbers[_key(parent)]

    def _nothing_usable(self, annotations: int) -> str:
        if not annotations:
            return f"no annotations in {self.path}; add at least one, with `segmentation`"
        return (
            f"no usable one among its {annotations} annotations in {self.path}; at least one entity must have a "
            "`segmentation` that covers pixels of the image and not be `iscrowd`"
        )


def _assemble(regions: dict[int, _Region]) -> tuple[Entity, ...]:
    """Assemble the entities of an image, with their parts, from its decoded annotations by `id`."""
    new_id = count(max(regions, default=0) + 1)
    drafts = {
        region.id: _Draft(region.id, region.category.entity, region)
        for region in regions.values()
        if not region.is_part
    }
    annotated = {draft.name for draft in drafts.values()}
    made_of_parts: dict[str, _Draft] = {}
    for part in regions.values():
        name = part.category.entity
        if not part.is_part or not part.mask.any():
            continue
        if part.parent is None and name not in annotated:
            if name not in made_of_parts:
                made_of_parts[name] = _Draft(next(new_id), name, None)
            owner: _Draft | None = made_of_parts[name]
        elif part.parent is None:
            owner = _containing(part, drafts.values())
        else:
            owner = drafts.get(_root(part, regions))
        if owner is not None:
            owner.parts.append(part)
    usable = (draft for draft in (*drafts.values(), *made_of_parts.values()) if draft.mask().any())
    return tuple(_finish(draft, new_id) for draft in usable)


def _root(part: _Region, regions: dict[int, _Region]) -> int:
    """
    Follow a chain of parents to its end: an eye may be part of a face, which is part of a person (or of a crowd).
    """
    ancestor = part
    while ancestor.parent is not None:
        if ancestor.parent not in regions:
            return ancestor.parent
        ancestor = regions[ancestor.parent]
    return ancestor.id


def _check_ancestors(part: _Region, regions: dict[int, _Region], crowds: set[int | None]) -> None:
    """Check that a chain of parents ends at an entity or a crowd."""
    seen = {part.id}
    ancestor = part
    while ancestor.parent is not None and ancestor.parent not in crowds:
        if ancestor.parent in seen:
            raise AnnotationError(f"{part.where}: its chain of parents must end at an entity, got a circle")
        seen.add(ancestor.parent)
        if ancestor.parent not in regions:
            raise AnnotationError(f"{part.where}: what it is part of must be usable, got a malformed annotation")
        ancestor = regions[ancestor.parent]
    if part.parent is not None and ancestor.parent is None and ancestor.is_part:
        raise AnnotationError(f"{part.where}: the parent must be an entity, got the part {ancestor.part_name!r}")


def _containing(part: _Region, drafts: Iterable[_Draft]) -> _Draft | None:
    """
    Find the entity of the part's kind that holds most of it, the smallest of equals; `None` if none holds enough.
    """
    ranked = []
    for draft in drafts:
        if draft.region is not None and draft.name == part.category.entity:
            containment = float(draft.region.mask[part.mask].mean())
            ranked.append((containment, -int(draft.region.mask.sum()), draft))
    containment, _, owner = max(ranked, key=lambda rank: rank[:2])
    return owner if containment >= MIN_CONTAINMENT else None


def _finish(draft: _Draft, new_id: count[int]) -> Entity:
    """Return the entity with its parts and, as further parts, its keypoints."""
    mask = draft.mask()
    bbox = bbox_of_mask(mask)
    parts = [
        replace(_part(part.part_name, part.id, part.mask, draft.id, part.level), optional=part.category.optional)
        for part in draft.parts
    ]
    radius = _KEYPOINT_RADIUS * float(np.sqrt((bbox[2] - bbox[0]) * (bbox[3] - bbox[1])))
    annotated = {part.name for part in parts}
    for name, centre in _visible_keypoints(draft.region) if draft.region else ():
        pixels = disc(mask.shape, centre, radius) & mask
        if name not in annotated and pixels.any():
            parts.append(_part(name, next(new_id), pixels, draft.id, part_level(name)))
    return Entity(draft.name, draft.id, bbox, mask, score=1.0, parts=tuple(parts))


def _part(name: str, identifier: int, mask: np.ndarray, parent: int, level: PartLevel) -> Part:
    return Part(name, identifier, bbox_of_mask(mask), mask, score=1.0, parent=parent, level=level)


def _visible_keypoints(region: _Region) -> Iterable[tuple[str, tuple[float, float]]]:
    """Yield name and position of each keypoint that is labelled and not occluded."""
    for position, name in enumerate(region.category.keypoints if region.keypoints else ()):
        x, y, visibility = region.keypoints[3 * position : 3 * position + 3]
        if visibility == 2:
            yield name, (x, y)


def _check_keypoints(keypoints: Any, category: _Category) -> list[float]:
    expected = 3 * len(category.keypoints)
    if not keypoints:
        return []
    if not isinstance(keypoints, list) or len(keypoints) != expected or not all(is_number(k) for k in keypoints):
        raise ValueError(
            f"`keypoints` must be {expected} numbers, x, y and v for each that its category names, got "
            f"{shorten(keypoints)}"
        )
    return keypoints


def _categories_named_by_supercategory(records: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """
    Return supercategories and names such as "Quadruped" and "Quadruped Head". All categories of a supercategory must
    be named so, which keeps COCO's "sports ball" of supercategory "sports" an entity.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for record in records:
        groups[str(record.get("supercategory"))].append(str(record.get("name")))
    return {
        (supercategory, name)
        for supercategory, names in groups.items()
        if len(names) > 1 and all(name.lower().startswith(supercategory.lower() + " ") for name in names)
        for name in names
    }


def _key(identifier: Any) -> str:
    """Return an id as text: files that hold numbers here and texts there mean the same."""
    return str(identifier)


def _posix(file_name: str) -> str:
    """Return the `file_name` of an entry with forward slashes."""
    return file_name.replace("\\", "/").removeprefix("./")


def _shared_folders(path: str, other: str) -> int:
    """Return how many folders two paths with the same file name share at their ends."""
    folders = zip(reversed(PurePosixPath(path).parts[:-1]), reversed(PurePosixPath(other).parts[:-1]), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], folders))


def _listed(entries: list[dict[str, Any]]) -> str:
    return ", ".join(f"{entry['file_name']} (id {entry['id']})" for entry in entries[:3])


def _clean(name: str) -> str:
    """Simplify a name: `"car_(automobile)"` → `"car"`, `"left_ear"` → `"left ear"`."""
    return " ".join(re.sub(r"\(.*?\)", " ", name).replace("_", " ").lower().split())


def _caption(names: Iterable[str]) -> str:
    unique = list(dict.fromkeys(names))
    listed = unique[0] if len(unique) == 1 else ", ".join(unique[:-1]) + " and " + unique[-1]
    return f"a photo of {listed}"


def load(spec: PerceptionSpec, source: Path, vlm: VLM | None, device: str | None) -> AnnotationPerception:
    """Load the backend; see [`~datasets_script.agents.perception.backends.PerceptionSpec.load`]."""
    path = spec.annotations_file(source)
    assert path is not None  # because of `needs_annotations`
    agent = AnnotationPerception(path, source)
    if limits := agent.summary().limits():
        logger.warning("%s: %s", path, limits)
    return agent
