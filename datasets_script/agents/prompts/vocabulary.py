"""Vocabulary of an image: names of its entities and their parts, for a detector to look for (ArtiAgent §3)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ...vlm.base import VLMRequest


VERSION = "1"

# Numbers of parts and entities that are used. The schema allows twice as many; without a limit, a model that a server
# holds to the schema could go on for ever.
MAX_PARTS, MAX_ENTITIES = 6, 8

_NAME = {"type": "string", "minLength": 1, "maxLength": 60}
_LIST = {
    "type": "array",
    "maxItems": 2 * MAX_ENTITIES,
    "items": {
        "type": "object",
        "properties": {
            "entity": _NAME,
            "subentities": {"type": "array", "items": _NAME, "maxItems": 2 * MAX_PARTS},
        },
        "required": ["entity", "subentities"],
        "additionalProperties": False,
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"peripheral": _LIST, "intermediate": _LIST},
    "required": ["peripheral", "intermediate"],
    "additionalProperties": False,
}

_PROMPT = f"""\
Task: vocabulary.
Name the people, animals and things in this picture, and those of their parts that one could trace with a pencil. Each
of them is an entity; sort its parts into two lists.
- "peripheral": parts at the far ends and edges, with a clear contour: a hand, finger, foot, ear, eye, nose, beak, paw,
  hoof, tail, horn, fin, wing, wheel, mirror, handle or the like.
- "intermediate": structure of middle size in between: an arm, leg, face, neck, door, window, seat, lid or the like.
Rules:
- Only what can be seen clearly and as a whole. Leave out what is hidden behind something, cut off by the picture's
  edge, blurred or tiny.
- At least one part and at most {MAX_PARTS} for each entity of a list; leave out entities without such parts, and
  name at most {MAX_ENTITIES} entities, the largest.
- Names are short everyday nouns in lower case and in the singular, without article, colour, number or side: "ear", not
  "the two ears" or "left ear". Each name once, however many there are of it.
- No part that runs into the trunk without a border, such as a chest, belly, back or shoulder.
- In "peripheral" nothing that comes in any number: no hair, leaves, feathers, scales, petals or crowd.
- Where only a part of something is in the picture, such as a hand without its owner, that part is the entity.
- No part in both lists: one that fits both is peripheral only if it is plainly at an end or edge.
- Where nothing fits, a list is empty.
Answer with JSON only:
{{"peripheral": [{{"entity": "...", "subentities": ["...", "..."]}}], "intermediate": [{{"entity": "...", \
"subentities": ["..."]}}]}}"""

# Last words of names of uncountable parts: no tool can add one of them or remove one.
_ANY_NUMBER = frozenset("hair fur leaf leaves foliage feather feathers scale scales petal petals crowd people".split())

_DETERMINERS = frozenset("a an the its his her their one two three four several many some both".split())

# Words of a name; longer ones are descriptions.
_MAX_WORDS = 4


@dataclass(frozen=True)
class EntityNames:
    """Name of an entity, and names of its parts by level."""

    name: str
    peripheral: tuple[str, ...] = ()
    intermediate: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """Return the names of all parts."""
        return self.peripheral + self.intermediate


@dataclass(frozen=True)
class Vocabulary:
    """
    Names that a VLM gives to the contents of one image, cleaned up: lower case, only letters, digits, `-` and `'`.
    """

    entities: tuple[EntityNames, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Return every name once: the entities, then their parts."""
        parts = (part for entity in self.entities for part in entity.parts)
        return tuple(dict.fromkeys([*(entity.name for entity in self.entities), *parts]))


def request(image: Image.Image) -> VLMRequest:
    """Create the request for the vocabulary of an image."""
    return VLMRequest("vocabulary", VERSION, _PROMPT, (image,), SCHEMA, max_new_tokens=1024)


def read(value: Mapping[str, Any]) -> Vocabulary:
    """
    Read the vocabulary from an answer that satisfies `SCHEMA`, and clean it up. Entries of one entity are merged, and
    a part in both lists is peripheral. Left out are repetitions, descriptions, parts named like their entity,
    uncountable peripheral parts, entities without parts, and everything beyond `MAX_PARTS` of a list or
    `MAX_ENTITIES`.
    """
    peripheral, intermediate = (_merged(value[level]) for level in ("peripheral", "intermediate"))
    entities = []
    for name in dict.fromkeys([*peripheral, *intermediate]):
        ends = [part for part in peripheral.get(name, ()) if part.split()[-1] not in _ANY_NUMBER][:MAX_PARTS]
        middle = [part for part in intermediate.get(name, ()) if part not in ends][:MAX_PARTS]
        if ends or middle:
            entities.append(EntityNames(name, tuple(ends), tuple(middle)))
    return Vocabulary(tuple(entities[:MAX_ENTITIES]))


def _merged(entries: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the clean names of the parts, each once, by the clean name of their entity."""
    merged: dict[str, list[str]] = {}
    for entry in entries:
        for entity in _clean([entry["entity"]]):
            parts = merged.setdefault(entity, [])
            parts += dict.fromkeys(name for name in _clean(entry["subentities"]) if name not in (entity, *parts))
    return merged


def _clean(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        words = re.sub(r"[^\w' -]|_", " ", name.lower()).split()
        while words and words[0] in _DETERMINERS:
            words.pop(0)
        if 1 <= len(words) <= _MAX_WORDS and any(map(str.isalnum, words[-1])):
            yield " ".join(words)
