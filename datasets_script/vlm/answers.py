"""From a model's text to a validated object: the JSON in it, found and checked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator


# What is kept of an answer that cannot be used: enough to see what went wrong.
RAW_LIMIT = 4000

# Far beyond any answer that was asked for; searching megabytes for JSON takes minutes.
_MAX_LENGTH = 100_000

_FENCE = re.compile(r"```(?:json)?\s*\n?(.*?)```", re.DOTALL | re.IGNORECASE)


def read_json(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    """
    The first object in a text that satisfies a schema: the text itself, the content of a fence, or amid prose.

    Args:
        text (`str`): A model's answer.
        schema (`dict`): JSON schema of an object.

    Raises:
        ValueError: there is none; the message says what is wrong with the first that is there.
    """
    if not text.strip():
        raise ValueError("the answer is empty")
    if len(text) > _MAX_LENGTH:
        raise ValueError(f"the answer is too long: {len(text):,} characters, over {_MAX_LENGTH:,}")
    validator, problem = Draft202012Validator(schema), "the answer holds no JSON object"
    for number, value in enumerate(_objects(text)):
        error = next(iter(validator.iter_errors(value)), None)
        if error is None:
            return value
        if number == 0:
            where = "".join(f"[{step!r}]" for step in error.path)
            problem = f"the answer does not fit its schema{f' at {where}' if where else ''}: {shorten(error.message)}"
    raise ValueError(problem)


def shorten(text: str, length: int = 200) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _objects(text: str) -> Iterator[dict[str, Any]]:
    for candidate in (text, *_FENCE.findall(text)):
        value = _loads(candidate)
        if isinstance(value, dict):
            yield value
    decoder, position = json.JSONDecoder(), text.find("{")
    while position >= 0:
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            end = position + 1
        else:
            yield value
        position = text.find("{", end)


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
