"""Wording, schemas and answers of the questions that perception asks."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from PIL import Image

from datasets_script.agents.prompts import caption, vocabulary
from datasets_script.agents.prompts.vocabulary import MAX_ENTITIES, MAX_PARTS, EntityNames, Vocabulary


IMAGE = Image.new("RGB", (64, 48))


def answer(peripheral: dict[str, list[str]], intermediate: dict[str, list[str]] | None = None) -> dict[str, Any]:
    lists = {"peripheral": peripheral, "intermediate": intermediate or {}}
    return {
        level: [{"entity": entity, "subentities": parts} for entity, parts in entries.items()]
        for level, entries in lists.items()
    }


def read(*entries: Any) -> tuple[EntityNames, ...]:
    value = answer(*entries)
    Draft202012Validator(vocabulary.SCHEMA).validate(value)
    return vocabulary.read(value).entities


@pytest.mark.parametrize(("task", "prompt"), [("vocabulary", vocabulary), ("caption", caption)])
def test_a_prompt_begins_with_its_task_and_shows_the_json_its_schema_wants(task, prompt):
    request = prompt.request(IMAGE)
    assert (request.task, request.version, request.images) == (task, prompt.VERSION, (IMAGE,))
    assert request.prompt.splitlines()[0] == f"Task: {task}."
    Draft202012Validator.check_schema(request.schema)
    Draft202012Validator(request.schema).validate(json.loads(request.prompt[request.prompt.index("{") :]))


@pytest.mark.parametrize(
    "rule",
    [
        "seen clearly and as a whole",
        "cut off by the picture's\n  edge",
        "At least one part and at most 6",
        "lower case",
        "Each name once",
        "runs into the trunk",
        "hair, leaves, feathers, scales, petals or crowd",
        "that part is the entity",
        "fits both is peripheral only if it is plainly at an end",
    ],
)
def test_the_vocabulary_is_asked_for_by_the_rules(rule):
    assert rule in vocabulary.request(IMAGE).prompt


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"peripheral": []},
        {"peripheral": {}, "intermediate": []},
        {"peripheral": [{"entity": "cat"}], "intermediate": []},
        {"peripheral": [{"entity": "", "subentities": ["ear"]}], "intermediate": []},
        answer({"cat": ["ear"]}) | {"other": []},
        answer({"cat": ["ear"] * (2 * MAX_PARTS + 1)}),
    ],
)
def test_answers_of_another_form_do_not_fit_the_schema(value):
    assert not Draft202012Validator(vocabulary.SCHEMA).is_valid(value)


def test_levels():
    cat, car = read({"cat": ["ear", "tail"]}, {"cat": ["leg"], "car": ["door"]})
    assert cat == EntityNames("cat", ("ear", "tail"), ("leg",)) and cat.parts == ("ear", "tail", "leg")
    assert car == EntityNames("car", (), ("door",))


def test_names_are_tidied():
    assert read(
        {"The  Cat!": ["Two ears.", "an EAR", "ear", "wing_mirror", "driver's seat", "t-shirt", "(tail)"]}
    ) == (EntityNames("cat", ("ears", "ear", "wing mirror", "driver's seat", "t-shirt", "tail")),)


@pytest.mark.parametrize("name", ["…", " - ", "the", "a paw that is lifted from the grass"])
def test_what_is_no_name_is_left_out(name):
    assert read({"cat": ["ear", name], name: ["ear"]}) == (EntityNames("cat", ("ear",)),)


def test_a_part_in_both_lists_is_peripheral():
    assert read({"cat": ["ear"]}, {"cat": ["leg", "ear"]}) == (EntityNames("cat", ("ear",), ("leg",)),)


def test_what_comes_in_any_number_is_not_peripheral():
    (person,) = read({"person": ["hair", "grey hair", "hand"]}, {"person": ["hair"]})
    assert person == EntityNames("person", ("hand",), ("hair",))


def test_entries_of_one_entity_are_joined():
    value = answer({"cat": ["ear"], "CAT": ["tail", "ear"]})
    assert vocabulary.read(value).entities == (EntityNames("cat", ("ear", "tail")),)


def test_entities_without_parts_are_left_out():
    assert read({"rug": [], "hand": ["hand"], "girl": ["hair"], "cat": ["ear"]}) == (EntityNames("cat", ("ear",)),)
    assert read({}) == ()


def test_the_first_of_too_many_are_used():
    parts = [f"part {chr(97 + number)}" for number in range(2 * MAX_PARTS)]
    entities = read({f"thing {number}": parts for number in range(MAX_ENTITIES + 2)}, {"thing 0": parts})
    assert [entity.name for entity in entities] == [f"thing {number}" for number in range(MAX_ENTITIES)]
    assert entities[0] == EntityNames("thing 0", tuple(parts[:MAX_PARTS]), tuple(parts[MAX_PARTS:]))


def test_every_name_is_looked_for_once():
    words = Vocabulary((EntityNames("person", ("hand",), ("face",)), EntityNames("hand", ("finger",))))
    assert words.names == ("person", "hand", "face", "finger")


_entries = st.lists(
    st.fixed_dictionaries(
        {
            "entity": st.text(min_size=1, max_size=12) | st.sampled_from(["cat", "A cat", "hand"]),
            "subentities": st.lists(
                st.text(min_size=1, max_size=12) | st.sampled_from(["ear", "Ears", "the ear", "hair", "cat"]),
                max_size=12,
            ),
        }
    ),
    max_size=2 * MAX_ENTITIES,
)


@given(st.fixed_dictionaries({"peripheral": _entries, "intermediate": _entries}))
def test_whatever_the_answer_the_vocabulary_keeps_the_rules(value):
    entities = vocabulary.read(value).entities
    assert len({entity.name for entity in entities}) == len(entities) <= MAX_ENTITIES
    for entity in entities:
        assert len(set(entity.parts)) == len(entity.parts) >= 1 and entity.name not in entity.parts
        assert max(len(entity.peripheral), len(entity.intermediate)) <= MAX_PARTS and "hair" not in entity.peripheral
        for name in (entity.name, *entity.parts):
            assert name == " ".join(name.lower().split()) and re.fullmatch(r"[\w' -]+", name)


def test_a_caption_is_read_on_one_line():
    assert caption.read({"caption": " A cat\n on a rug. "}) == "A cat on a rug."
    with pytest.raises(ValueError, match="`caption` must not be blank, got"):
        caption.read({"caption": " \n"})
