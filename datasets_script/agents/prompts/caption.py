"""A short caption of an image, the prompt of its inversion and denoising (ArtiAgent §3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

from ...vlm.base import VLMRequest
from .text import read_text


VERSION = "1"

SCHEMA = {
    "type": "object",
    "properties": {"caption": {"type": "string", "minLength": 1, "maxLength": 300}},
    "required": ["caption"],
    "additionalProperties": False,
}

_PROMPT = """\
Task: caption.
Write one short caption for this picture, of eight to twenty words: its main people, animals or things, what they do
and where they are. Say only what can be seen, in plain words, as one phrase without a line break. Do not begin with
"a picture of" or the like, and do not speak of style, mood or quality.
Answer with JSON only: {"caption": "..."}"""


def request(image: Image.Image) -> VLMRequest:
    """Create the request for a caption of an image."""
    return VLMRequest("caption", VERSION, _PROMPT, (image,), SCHEMA, max_new_tokens=96)


def read(value: Mapping[str, Any]) -> str:
    """
    Read the caption from an answer that satisfies `SCHEMA`.

    Raises:
        ValueError: It is blank.
    """
    return read_text("caption", value)
