"""Explanations of an artifact image: of one artifact, and of the image as a whole (ArtiAgent §5)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ...vlm.base import VLMRequest
from .text import read_text


# Covers the images of `datasets_script.agents.curation.triplets` too: raise it when either changes.
VERSION = "1"

LOCAL_SCHEMA = {
    "type": "object",
    "properties": {
        "explanation": {"type": "string", "minLength": 1, "maxLength": 600},
        "label": {"type": "string", "minLength": 1, "maxLength": 80},
    },
    "required": ["explanation", "label"],
    "additionalProperties": False,
}
GLOBAL_SCHEMA = {
    "type": "object",
    "properties": {"explanation": {"type": "string", "minLength": 1, "maxLength": 1000}},
    "required": ["explanation"],
    "additionalProperties": False,
}

_LOCAL = """\
Task: explain_local.
You see three pictures of one scene.
The first is the whole scene; the region in question is covered with grey.
The second is a close-up of that region and its surroundings as they should be.
The third is the same close-up with a flaw: {flaw}.
Put the flaw into words for a reader who has the flawed picture alone.
- "explanation": one or two sentences: what looks wrong there, and why it cannot be right.
- "label": the flaw's name in two to five words, such as "extra left ear" or "missing wheel".
Say only what can be seen, in plain everyday words. Speak of the things shown: never of pictures, their order,
close-ups or grey areas, never of an edit, a tool or a comparison, and give no coordinates.
Answer with JSON only: {{"explanation": "...", "label": "..."}}"""

_GLOBAL = """\
Task: explain_global.
This picture has flaws in the places listed below, given as shares of its width from the left and of its height from
the top.
{regions}
Write two or three sentences that tell a reader what is wrong with the picture as a whole. Mention every flaw of the
list, name the things concerned and, where it helps, say in words such as "on the left" where they are. Say only what
can be seen, in plain everyday words. Give no coordinates, percentages or numbered list, and do not speak of boxes,
regions, an edit or a tool.
Answer with JSON only: {{"explanation": "..."}}"""

# Phrases that make no sense to a reader who has the artifact image alone.
_SHOWN_IMAGE = re.compile(
    r"\b(?:first|second|third|1st|2nd|3rd|original|masked)\s+(?:image|picture|photo(?:graph)?|crop|close-up)\b"
    r"|\b(?:image|picture|crop|close-up)\s*[#(]?\s*[1-3]\b",
    re.IGNORECASE,
)
_COORDINATES = re.compile(r"\d+(?:\.\d+)?\s*(?:%|px\b|pixels?\b)|[\[(]\s*\d+(?:\.\d+)?\s*,\s*\d")


@dataclass(frozen=True)
class LocalExplanation:
    """Explanation of one artifact: a sentence or two, and a name of a few words."""

    explanation: str
    label: str


def local_request(artifact: str, triplet: tuple[Image.Image, Image.Image, Image.Image]) -> VLMRequest:
    """
    Create the request for an explanation of one artifact.

    Args:
        artifact (`str`): The artifact as a clause, e.g. `"the cat has an extra ear"`.
        triplet (`tuple[PIL.Image.Image, PIL.Image.Image, PIL.Image.Image]`): See
            [`~datasets_script.agents.curation.triplets.make_triplet`].
    """
    return VLMRequest(
        "explain_local", VERSION, _LOCAL.format(flaw=artifact), triplet, LOCAL_SCHEMA, max_new_tokens=256
    )


def read_local(value: Mapping[str, Any]) -> LocalExplanation:
    """
    Read the texts from an answer that satisfies `LOCAL_SCHEMA`.

    Raises:
        ValueError: A text is blank, refers to the images of the question, or gives coordinates.
    """
    return LocalExplanation(_plain("explanation", value), _plain("label", value))


def global_request(
    flawed: Image.Image, artifacts: Sequence[tuple[tuple[float, float, float, float], str]]
) -> VLMRequest:
    """
    Create the request for an explanation of an artifact image as a whole.

    Args:
        flawed (`PIL.Image.Image`): The artifact image.
        artifacts (`Sequence[tuple[tuple[float, float, float, float], str]]`): The box of each artifact,
            `(x_min, y_min, x_max, y_max)` in pixels of `flawed`, and its local explanation.
    """
    regions = "\n".join(f"- {_place(box, flawed.size)}: {explanation}" for box, explanation in artifacts)
    prompt = _GLOBAL.format(regions=regions)
    return VLMRequest("explain_global", VERSION, prompt, (flawed,), GLOBAL_SCHEMA, max_new_tokens=384)


def read_global(value: Mapping[str, Any]) -> str:
    """
    Read the explanation from an answer that satisfies `GLOBAL_SCHEMA`.

    Raises:
        ValueError: As for [`read_local`].
    """
    return _plain("explanation", value)


def _place(box: tuple[float, float, float, float], size: tuple[int, int]) -> str:
    # Shares of the sides, because the model resizes the image.
    left, top, right, bottom = (f"{position / size[i % 2]:.0%}" for i, position in enumerate(box))
    return f"{left} to {right} from the left, {top} to {bottom} from the top"


def _plain(name: str, value: Mapping[str, Any]) -> str:
    text = read_text(name, value)
    if found := _SHOWN_IMAGE.search(text):
        raise ValueError(f"`{name}` must not refer to the images of the question, got {found[0]!r}")
    if found := _COORDINATES.search(text):
        raise ValueError(f"`{name}` must not give coordinates, got {found[0]!r}")
    return text
