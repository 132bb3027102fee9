"""Description of a clean image: the counterpart of an explanation, for an image without artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

from ...vlm.base import VLMRequest
from .text import read_text


VERSION = "1"

SCHEMA = {
    "type": "object",
    "properties": {"description": {"type": "string", "minLength": 1, "maxLength": 600}},
    "required": ["description"],
    "additionalProperties": False,
}

_PROMPT = """\
Task: describe_clean.
Someone asks whether anything in this picture is structurally wrong: parts too many, missing, misshapen or grown
together. Nothing is. Answer in one or two sentences: say what the picture shows, naming its main people, animals or
things, and that they are whole and as they should be.
Say only what can be seen, in plain everyday words. Do not list flaws that the picture does not have, do not praise it,
and do not speak of its sharpness, style or making.
Answer with JSON only: {"description": "..."}"""


def request(clean: Image.Image) -> VLMRequest:
    """Create the request for a description of a clean image."""
    return VLMRequest("describe_clean", VERSION, _PROMPT, (clean,), SCHEMA, max_new_tokens=256)


def read(value: Mapping[str, Any]) -> str:
    """
    Read the description from an answer that satisfies `SCHEMA`.

    Raises:
        ValueError: It is blank.
    """
    return read_text("description", value)
