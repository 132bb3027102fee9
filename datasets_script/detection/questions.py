"""What a model is asked of each image of a benchmark; one text for each question, with a version."""

from __future__ import annotations

from typing import Literal, get_args

from PIL import Image

from evaluate_metrics.functional.classification import CLASSES

from ..vlm.base import VLMRequest
from ..vlm.conventions import Convention


Task = Literal["detection", "localization", "explanation", "classification"]
TASKS: tuple[Task, ...] = get_args(Task)
# Raise it when any of the texts changes.
VERSION = "1"

# What each of SynArtifact's classes means, in the order of their numbers.
_MEANINGS = (
    "letters or text that cannot be read or are malformed",
    "a person's or animal's face with an expression that is not natural",
    "a thing or a part of one with a shape or details that it cannot have",
    "something is there twice, or too often, that must be there once",
    "a part is missing, or a thing is incomplete",
    "a thing has a colour that it does not have in reality",
    "two things interact as they cannot, such as being fused",
    "a thing or a part is in a place where it does not belong",
    "the surface of a thing does not look as its material does",
    "light and shadows contradict each other",
    "light that nothing in the scene could give",
    "a place is smeared or out of focus for no reason",
    "anything else that is wrong; say what after a colon",
    "nothing is wrong; never together with another kind",
)

_ARTIFACTS = "visual artifacts: things or parts that are duplicated, missing, deformed, fused or otherwise impossible"

_DETECTION = f"""\
Does this image have {_ARTIFACTS}?
Answer with one word: Yes or No."""

_LOCALIZATION = f"Where does this image have {_ARTIFACTS}?"

_EXPLANATION = f"""\
What is wrong with this image? Look for {_ARTIFACTS}.
Describe all of them in two or three sentences: what looks wrong, and why it cannot be right. Give no coordinates.
If there are none, answer only: No artifacts."""

_OPTIONS = "\n".join(f"- {kind.name}: {meaning}." for kind, meaning in zip(CLASSES, _MEANINGS, strict=True))
_CLASSIFICATION = f"""\
Which of these kinds of artifacts does this image have?
{_OPTIONS}
Answer with a numbered list of kinds from above, in these words, and nothing else. Two examples:
1. Duplicated components.
2. Other artifacts: The horizon is broken.
and, for an image without any:
1. No artifacts."""

_JSON = (
    'Answer with JSON only, a list with an object for each region: [{"bbox_2d": [x_min, y_min, x_max, y_max], '
    '"label": "what is wrong there"}]. Coordinates are counted from the top left corner, '
)
_FORMS: dict[Convention, str] = {
    "pixel": f"{_JSON}in pixels of the image, which is WIDTH wide and HEIGHT high.",
    "normalized": f"{_JSON}as fractions of the image's width and height, from 0 to 1 with three decimals.",
    "qwen2.5": f"{_JSON}in absolute pixels of the image.",
    "qwen3": f"{_JSON}in whole numbers from 0 to 1000, relative to the image's width and height.",
    "internvl": "Answer with a line for each region: <ref>what is wrong there</ref><box>[[x_min, y_min, x_max, "
    "y_max]]</box>. Coordinates are whole numbers from 0 to 1000, relative to the image's width and height.",
    "llava": "Answer with a line for each region: [x_min, y_min, x_max, y_max], and what is wrong there. Coordinates "
    "are fractions from 0 to 1 with two decimals, of the image padded to a square.",
}
_LENGTHS: dict[Task, int] = {"detection": 256, "localization": 1024, "explanation": 384, "classification": 256}


def question(task: Task, coordinates: Convention) -> str:
    """
    The text of a question. `WIDTH` and `HEIGHT` in it stand for those of the image, px.

    Args:
        task (`str`): One of `TASKS`.
        coordinates (`str`): The convention of boxes that the model is asked for.
    """
    texts: dict[Task, str] = {
        "detection": _DETECTION,
        "localization": f"{_LOCALIZATION}\n{_FORMS[coordinates]}\nIf there are none, answer only: []",
        "explanation": _EXPLANATION,
        "classification": _CLASSIFICATION,
    }
    return f"Task: {task}.\n{texts[task]}"


def request(task: Task, coordinates: Convention, image: Image.Image, max_new_tokens: int | None = None) -> VLMRequest:
    """A question with its image, to be answered in free text of at most `max_new_tokens` (a length for each task)."""
    width, height = image.size
    prompt = question(task, coordinates).replace("WIDTH", str(width)).replace("HEIGHT", str(height))
    return VLMRequest(task, VERSION, prompt, (image,), None, max_new_tokens or _LENGTHS[task])
