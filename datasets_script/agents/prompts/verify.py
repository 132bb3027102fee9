"""Triplet check: whether a close-up shows the intended artifact (ArtiAgent §5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

from diffusers_artifact.mapping import ArtifactType

from ...vlm.base import VLMRequest


# Covers the images of `datasets_script.agents.curation.triplets` too: raise it when either changes.
VERSION = "1"

SCHEMA = {
    "type": "object",
    "properties": {"has_artifact": {"type": "boolean"}},
    "required": ["has_artifact"],
    "additionalProperties": False,
}

_INTRODUCTION = """\
You see three pictures of one scene.
The first is the whole scene; the region in question is covered with grey.
The second is a close-up of that region and its surroundings before an edit.
The third is the same close-up after the edit.
"""

# Distortions are judged by their perceptual distance instead, as in the paper, and so are corruptions.
_CRITERIA: dict[ArtifactType, str] = {
    "duplication": """\
The edit was meant to add one more of: {subject}.
Answer true only if the close-up after the edit shows an extra one that was not there before, and all of this holds:
- it can be recognised for what it is;
- it has a contour of its own and stands apart from the one that was there before;
- it sits where it could belong, on or right beside its owner, so that a viewer would count one too many.
Answer false if only texture, brightness or colour has changed; if the one that was there before has only moved, grown
or become blurred; or if the new shape could be anything.""",
    "omission": """\
The edit was meant to take away: {subject}.
Answer true only if it can be seen before the edit, is gone afterwards or all but gone, and the close-up after the edit
shows that something is missing: a stump, an empty or smeared place, or background where it must have been.
Answer false if it can still be seen; if a pose, a point of view, something in front of it or the picture's edge could
explain that it cannot be seen; or if it has only become blurred or changed in colour.""",
    "fusion": """\
The edit was meant to make these run into each other: {subject}.
Answer true only if both can be seen before the edit and at least one of these shows afterwards, where they meet:
- the boundary between them is lost;
- colour or texture of one bleeds into the other;
- they pass through each other as solid things cannot;
- it is contradictory which of them is in front.
Answer false if they only touch or overlap with a clear border between them, or if the place has only become blurred,
brighter or darker.""",
}

TYPES = tuple(_CRITERIA)
"""Types that are shown to a model."""

_ANSWER = (
    'Be strict: when in doubt answer false.\nAnswer with JSON only: {"has_artifact": true} or {"has_artifact": false}'
)


def request(kind: ArtifactType, subject: str, triplet: tuple[Image.Image, Image.Image, Image.Image]) -> VLMRequest:
    """
    Create the request that asks whether an artifact can be seen.

    Args:
        kind (`str`): `"duplication"`, `"omission"` or `"fusion"`.
        subject (`str`): What it concerns, e.g. `"the ear of the cat"` or `"the cat and the dog"`.
        triplet (`tuple[PIL.Image.Image, PIL.Image.Image, PIL.Image.Image]`): See
            [`~datasets_script.agents.curation.triplets.make_triplet`].

    Raises:
        ValueError: `kind` is another, such as `"distortion"`.
    """
    if kind not in _CRITERIA:
        raise ValueError(f"`kind` must be among {sorted(_CRITERIA)}, got {kind!r}")
    task = f"verify_{kind}"
    prompt = f"Task: {task}.\n{_INTRODUCTION}{_CRITERIA[kind].format(subject=subject)}\n{_ANSWER}"
    return VLMRequest(task, VERSION, prompt, triplet, SCHEMA, max_new_tokens=32)


def read(value: Mapping[str, Any]) -> bool:
    """Read whether the artifact can be seen from an answer that satisfies `SCHEMA`."""
    return bool(value["has_artifact"])
