"""What a picture holds: its entities and their parts by name, for a detector to look for (ArtiAgent §3)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ...vlm.base import VLMRequest


VERSION = "1"

# Of parts and entities in an answer: the first of them are used, and limits twice as wide keep a model from going on
# for ever where a server holds it to the schema.
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

# Last words of names of what comes in any number, which no tool can add one of or take one away.
_ANY_NUMBER = frozenset("hair fur leaf leaves foliage feather feathers scale scales petal petals crowd people".split())

_DETERMINERS = frozenset("a an the its his her their one two three four several many some both".split())

# A longer one is a description, not a name.
_MAX_WORDS = 4


@dataclass(frozen=True)
class EntityNames:
    """An entity's name and those of its parts, of each level."""

    name: str
    peripheral: tuple[str, ...] = ()
    intermediate: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        return self.peripheral + self.intermediate


@dataclass(frozen=True)
class Vocabulary:
    """What a VLM names in one image, cleaned up. Names are lower case and hold letters, digits, `-` and `'` only."""

    entities: tuple[EntityNames, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Every name once: the entities, then their parts."""
        parts = (part for entity in self.entities for part in entity.parts)
        return tuple(dict.fromkeys([*(entity.name for entity in self.entities), *parts]))


def request(image: Image.Image) -> VLMRequest:
    """The question what an image holds."""
    return VLMRequest("vocabulary", VERSION, _PROMPT, (image,), SCHEMA, max_new_tokens=1024)


def read(value: Mapping[str, Any]) -> Vocabulary:
    """
    The names of an answer that satisfies `SCHEMA`, cleaned up: entries of one entity are joined; a part in both lists
    is peripheral; left out are repetitions, descriptions, parts named as their entity, peripheral parts that come in
    any number, entities without parts, and what is beyond `MAX_PARTS` of a list or `MAX_ENTITIES`.
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
    """Clean names of the parts, each once, by the clean name of their entity."""
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
