"""Questions to a model about an image of a benchmark: one text for each task, with a common version."""

from __future__ import annotations

from typing import Literal, get_args

from PIL import Image

from evaluate_metrics.functional.classification import CLASSES

from ..vlm.base import VLMRequest
from ..vlm.conventions import find_convention


Task = Literal["detection", "localization", "explanation", "classification"]
TASKS: tuple[Task, ...] = get_args(Task)
# Raise it when one of the texts changes.
VERSION = "1"

# Meanings of SynArtifact's classes, in the order of their numbers.
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

_LENGTHS: dict[Task, int] = {"detection": 256, "localization": 1024, "explanation": 384, "classification": 256}


def question(task: Task, coordinates: str) -> str:
    """
    Return the text of a question. `WIDTH` and `HEIGHT` in it stand for those of the image in pixels.

    Args:
        task (`str`): One of `TASKS`.
        coordinates (`str`): Box convention that the model shall answer in, one of
            [`~datasets_script.vlm.conventions.CONVENTIONS`].
    """
    form = find_convention(coordinates).question
    texts: dict[Task, str] = {
        "detection": _DETECTION,
        "localization": f"{_LOCALIZATION}\n{form}\nIf there are none, answer only: []",
        "explanation": _EXPLANATION,
        "classification": _CLASSIFICATION,
    }
    return f"Task: {task}.\n{texts[task]}"


def request(task: Task, coordinates: str, image: Image.Image, max_new_tokens: int | None = None) -> VLMRequest:
    """
    Create the request that asks a question about an image, to be answered in free text.

    Args:
        task (`str`): One of `TASKS`.
        coordinates (`str`): See [`question`].
        image (`PIL.Image.Image`): RGB, as the model is shown it.
        max_new_tokens (`int`, *optional*): Maximum length of the answer; by default one for each task.
    """
    width, height = image.size
    prompt = question(task, coordinates).replace("WIDTH", str(width)).replace("HEIGHT", str(height))
    return VLMRequest(task, VERSION, prompt, (image,), None, max_new_tokens or _LENGTHS[task])
