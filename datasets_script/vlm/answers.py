"""Validated JSON objects from the text of a model's answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator


# Characters kept of an unusable answer: enough to see what went wrong.
RAW_LIMIT = 4000

# Far longer than any answer asked for. Searching megabytes for JSON would take minutes.
_MAX_LENGTH = 100_000


def read_json(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    """
    Read the last object in a text that satisfies a schema: on its own, in a code fence, or amid prose. The last one
    counts because models that think aloud try several answers before they settle on one.

    Args:
        text (`str`): A model's answer.
        schema (`dict`): JSON schema of an object.

    Returns:
        `dict`: The object.

    Raises:
        ValueError: No object satisfies the schema; the message gives the fault of the last one.
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
    """Cut a text to a number of characters, with an ellipsis if anything is cut."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield the outermost objects in a text, in order; nothing of a broken one, not even whole objects inside it."""
    decoder, position = json.JSONDecoder(parse_constant=_refuse_constant), text.find("{")
    while position >= 0:
        try:
            value, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            end = max(error.pos, position + 1)
        except (ValueError, RecursionError):  # NaN or infinity, a number of thousands of digits, or deep nesting
            return
        else:
            yield value
        position = text.find("{", end)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _is_text(value: dict[str, Any]) -> bool:
    """Return whether an object can be written as UTF-8: a model may escape one half of an emoji alone."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
