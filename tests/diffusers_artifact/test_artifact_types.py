"""Every artifact type has its words and colour, and every tool makes one type."""

from __future__ import annotations

import inspect
from string import Formatter

import pytest

from diffusers_artifact.artifact_types import RECORDS, ArtifactTypeRecord
from diffusers_artifact.mapping import ARTIFACT_TYPES
from diffusers_artifact.tools import ARTIFACT_TYPE_OF_TOOL, TOOLS, Tool


OF_A_THING = {"thing", "the_thing", "thing_is"}
OF_A_PART = {"part", "owner", "owners", "have", "an_extra", "are", "they", "their"} | OF_A_THING
OF_TWO_ENTITIES = {"couple", "both", "each_other"}


def fields(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name}


def test_every_type_has_a_record_under_its_name():
    assert tuple(RECORDS) == ARTIFACT_TYPES
    assert all(record.name == name for name, record in RECORDS.items())


@pytest.mark.parametrize("attribute", ["plural", "short_name", "color", "marker", "label", "clause"])
def test_types_are_told_apart(attribute):
    assert len({getattr(record, attribute) for record in RECORDS.values()}) == len(RECORDS)


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_templates_hold_the_words_there_are(record: ArtifactTypeRecord):
    known = OF_TWO_ENTITIES if record.of_two_entities else OF_A_PART
    for template in (record.label, record.clause, record.ending):
        assert fields(template) <= known
    assert fields(record.clause_with_place) == fields(record.clause_with_place) & known | {"place"}
    assert record.label and record.clause and len(record.short_name) == 3
    assert all(0 <= value <= 255 for value in record.color)


def test_every_tool_is_listed_with_its_type():
    assert ARTIFACT_TYPE_OF_TOOL == {
        "add": "duplication",
        "remove": "omission",
        "distort": "distortion",
        "fuse": "fusion",
    }
    assert all(tool.name == name for name, tool in TOOLS.items())


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_a_tool_takes_what_it_says(tool: Tool):
    parameters = inspect.signature(tool.function).parameters
    assert [name for name, of in parameters.items() if of.kind is of.POSITIONAL_OR_KEYWORD][2:] == []
    given = {"occupied", "generator", *tool.options_for((16, 16))}
    given |= {"kernel"} if tool.kernels else set()
    given |= {"same_parts"} if tool.avoids_same_parts else set()
    assert given <= set(parameters)
    assert RECORDS[tool.artifact_type].of_two_entities == (tool.works_on == "entities")


def test_a_tool_is_told_by_what_it_does():
    descriptions = [tool.description for tool in TOOLS.values()]
    assert len(set(descriptions)) == len(TOOLS) and not any(text.endswith(".") for text in descriptions)
