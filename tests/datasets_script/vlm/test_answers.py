"""Finding and checking the JSON in a model's text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_script.vlm.answers import read_json


SCHEMA = {
    "type": "object",
    "properties": {"has_artifact": {"type": "boolean"}},
    "required": ["has_artifact"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "text",
    [
        '{"has_artifact": true}',
        '  \n{"has_artifact": true}\n',
        '```json\n{"has_artifact": true}\n```',
        '```\n{"has_artifact": true}```',
        'Sure! Here it is: {"has_artifact": true}. Anything else?',
        'First I thought {"has_artifact": "yes"}, but no: {"has_artifact": true}',
        '{ not json } and {"has_artifact": true}',
        '<think>{"has_artifact": false}? No.</think>\n{"has_artifact": true}',
    ],
)
def test_the_object_is_found_wherever_it_is(text):
    assert read_json(text, SCHEMA) == {"has_artifact": True}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the answer is empty"),
        ("Yes.", "the answer holds no JSON object"),
        ('{"has_artifact": tr', "the answer holds no JSON object"),
        ("[true]", "the answer holds no JSON object"),
        ('{"list": [{"has_artifact": true}, {"has', "the answer holds no JSON object"),
        ('{"has_artifact": NaN}', "the answer holds no JSON object"),
        ('{"has_artifact": "yes"}', r"does not fit its schema at \['has_artifact'\]: 'yes' is not of type 'boolean'"),
        ("{}", "does not fit its schema: 'has_artifact' is a required property"),
        ('{"a": ' * 20_000, "the answer is too long: 120,000 characters"),
        ('{"a": ' * 15_000, "the answer holds no JSON object"),
    ],
)
def test_what_is_wrong_is_told(text, message):
    with pytest.raises(ValueError, match=message):
        read_json(text, SCHEMA)


@given(st.text(max_size=200))
def test_no_text_gives_another_error(text):
    try:
        assert read_json(text, SCHEMA)["has_artifact"] in (True, False)
    except ValueError:
        pass


def test_half_a_character_is_no_text():
    with pytest.raises(ValueError, match="half a character"):
        read_json(r'{"label": "\ud83d"}', {"type": "object"})
