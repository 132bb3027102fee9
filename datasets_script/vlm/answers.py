"""From a model's text to a validated object: the JSON in it, found and checked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator


# What is kept of an answer that cannot be used: enough to see what went wrong.
RAW_LIMIT = 4000

# Far beyond any answer that was asked for; searching megabytes for JSON takes minutes.
_MAX_LENGTH = 100_000


def read_json(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    """
    The last object in a text that satisfies a schema: alone, in a fence, or amid prose. The last, because models that
    think aloud try answers before they settle on one.

    Args:
        text (`str`): A model's answer.
        schema (`dict`): JSON schema of an object.

    Raises:
        ValueError: there is none; the message says what is wrong with the last that is there.
    """
    if not text.strip():
        raise ValueError("the answer is empty")
    if len(text) > _MAX_LENGTH:
        raise ValueError(f"the answer is too long: {len(text):,} characters, over {_MAX_LENGTH:,}")
    validator, problem = Draft202012Validator(schema), "the answer holds no JSON object"
    for number, value in enumerate(reversed(list(_objects(text)))):
        error = next(iter(validator.iter_errors(value)), None)
        if error is None and _is_text(value):
            return value
        if error is None:
            problem = "the answer holds half a character, which is no text"
        elif number == 0:
            where = "".join(f"[{step!r}]" for step in error.path)
            problem = f"the answer does not fit its schema{f' at {where}' if where else ''}: {shorten(error.message)}"
    raise ValueError(problem)


def shorten(text: str, length: int = 200) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The outermost objects in a text, in order; of a broken one nothing, not even whole objects inside it."""
    decoder, position = json.JSONDecoder(parse_constant=_refuse_constant), text.find("{")
    while position >= 0:
        try:
            value, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            end = max(error.pos, position + 1)
        except (ValueError, RecursionError):  # a number that JSON has not, one of thousands of digits, or too deep
            return
        else:
            yield value
        position = text.find("{", end)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _is_text(value: dict[str, Any]) -> bool:
    """Whether all of it can be written as UTF-8: a model may escape one half of an emoji alone."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
