"""Association of parts with the entities they belong to (ArtiAgent §3)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from diffusers_artifact.tools import bbox_of_mask

from ...schema.perception import Entity, Part, PartLevel, Perception
from ..prompts.vocabulary import EntityNames, Vocabulary


# Share of a part's pixels that lie in the entity it belongs to.
MIN_CONTAINMENT = 0.9


@dataclass(frozen=True, eq=False)
class Segment:
    """
    A named thing found in an image.

    Attributes:
        name (`str`): Name that it was looked for by.
        mask (`np.ndarray` of shape `(height, width)`, `bool`): Its pixels.
        score (`float`): Confidence in [0, 1].
    """

    name: str
    mask: np.ndarray
    score: float


def associate(segments: Sequence[Segment], vocabulary: Vocabulary, caption: str = "") -> Perception:
    """
    Assemble entities and their parts from named segments. A part belongs to the *instance* that contains most of it,
    by |part ∩ entity| / |part|, among entities that have such a part in the vocabulary; the smallest of equals. That
    share must be 0.9 or more. A segment whose name is that of an entity and of a part, such as a hand, counts as both.

    Args:
        segments (`Sequence[Segment]`): What was found, with masks of one shape.
        vocabulary (`Vocabulary`): Names that were looked for.
        caption (`str`, *optional*, defaults to `""`): Caption of the image.

    Returns:
        `Perception`: Entities in the order of the segments, with ids from 1. Its notes say what was left out and why:
        segments without pixels, and parts that no instance contains.
    """
    ids = count(1)
    names = {entity.name: entity for entity in vocabulary.entities}
    notes = [f"{segment.name}: its mask is empty" for segment in segments if not segment.mask.any()]
    segments = [segment for segment in segments if segment.mask.any()]
    entities = [
        Entity(segment.name, next(ids), bbox_of_mask(segment.mask), segment.mask, segment.score)
        for segment in segments
        if segment.name in names
    ]
    parts: dict[int, list[Part]] = defaultdict(list)
    for segment in segments:
        ranked = _ranked(segment, [entity for entity in entities if segment.name in names[entity.name].parts])
        if ranked and ranked[0][0] >= MIN_CONTAINMENT:
            owner = ranked[0][1]
            parts[owner.instance_id].append(_part(segment, next(ids), owner, names[owner.name]))
        elif segment.name not in names:
            notes.append(f"{segment.name}: {_why_nobodys(ranked)}")
    complete = tuple(replace(entity, parts=tuple(parts[entity.instance_id])) for entity in entities)
    return Perception(complete, caption, tuple(notes))


def _ranked(segment: Segment, candidates: Sequence[Entity]) -> list[tuple[float, Entity]]:
    """Return the share of a segment that each entity contains, largest first."""
    shares = [(float(entity.mask[segment.mask].mean()), entity) for entity in candidates]
    return sorted(shares, key=lambda pair: (-pair[0], pair[1].mask.sum()))


def _part(segment: Segment, identifier: int, owner: Entity, names: EntityNames) -> Part:
    level: PartLevel = "peripheral" if segment.name in names.peripheral else "intermediate"
    box = bbox_of_mask(segment.mask)
    return Part(segment.name, identifier, box, segment.mask, segment.score, owner.instance_id, level)


def _why_nobodys(ranked: Sequence[tuple[float, Entity]]) -> str:
    if not ranked:
        return "nothing was found that it could be a part of"
    share, entity = ranked[0]
    return f"{share:.1%} of it in {entity.name} #{entity.instance_id}, under {MIN_CONTAINMENT:.0%}"
