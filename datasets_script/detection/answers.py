"""From the texts that a model gave for an image to a prediction; what cannot be read is a failure, never a "no"."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace

from evaluate_metrics.functional.classification import NO_ARTIFACTS, ArtifactClass, find_class

from ..schema.boxes import Box
from ..schema.prediction import Prediction
from ..vlm.conventions import BoxFormat
from .box_answers import BoxAnswer, find_boxes
from .questions import TASKS
from .yes_no import LEAD, AnswerError, UnsaidError, read_yes_no, statements


# Far beyond any answer that was asked for; what a model repeats without end says nothing.
_MAX_LENGTH = 10_000

_THOUGHT_END = re.compile(r"</(?:think|thinking|reasoning)>", re.IGNORECASE)
_THOUGHT_START = re.compile(r"<(?:think|thinking|reasoning)>", re.IGNORECASE)
_ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|$)", re.DOTALL | re.IGNORECASE)
_SPECIAL = re.compile(r"<\|(?!box_|object_ref_)\w+\|>|</?s>")
_FIELD = re.compile(
    r"[\"'](?:explanation|description|reason(?:ing)?|caption|text)[\"']\s*:\s*"
    r"(?:\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'(?=\s*[,}]))",
    re.DOTALL | re.IGNORECASE,
)
_STRUCTURE = re.compile(r"```.*?(?:```|$)|<(ref|box)>.*?</\1>|<\|\w+\|>", re.DOTALL)
_BRACKETS = re.compile(r"\[[^\[\]{}]*\]|\{[^\[\]{}]*\}")
# Objects in lists in objects, with boxes in them; what is deeper was not asked for.
_MOST_BRACKETS = 8
_CLASS_FIELD = re.compile(r"[\"'](?:classes|class|categories|types|artifacts?)[\"']\s*:\s*(\[[^\]]*\]|\"[^\"]*\")")
_QUOTED = re.compile(r"\"([^\"]*)\"|'([^']*)'")
_BULLET = re.compile(r"^\s*(?:[-*•]+|\(?\d+[.):])?[\s*_]*")
_EMPTY_LIST = re.compile(r"\[\s*\]")
_NO_CLASS = frozenset({"none", "no artifact", "no visual artifacts", "there are no artifacts"})


def read_answers(
    image_id: str,
    answers: Mapping[str, str],
    size: tuple[int, int],
    coordinates: str,
    resized: tuple[int, int] | None = None,
) -> Prediction:
    """
    The prediction that a model's answers to several questions are.

    Args:
        image_id (`str`): Of the image.
        answers (`Mapping[str, str]`): By task: `"detection"`, `"localization"`, `"explanation"`, `"classification"`;
            only those that were asked.
        size (`tuple[int, int]`): Width and height of the image, px.
        coordinates (`str`): Convention of the boxes, see [`~datasets_script.vlm.conventions.encode_box`].
        resized (`tuple[int, int]`, *optional*): See there.

    Returns:
        `Prediction`: What cannot be read is `None`, or missing among `boxes` and `classes`, with the reason among
            `failures`.

    Raises:
        ValueError: an unknown task.

    Example:

    ```python
    >>> read_answers("a.png", {"detection": "Yes.", "localization": "At [10, 20, 40, 50]."}, (64, 64), "pixel")
    Prediction(id='a.png', has_artifact=True, boxes=((10.0, 20.0, 40.0, 50.0),), mask=None, explanation=None, \
classes=None, failures=())

    ```
    """
    prediction = Prediction(image_id)
    for task, text in answers.items():
        if task not in TASKS:
            raise ValueError(f"`answers` must be to {', '.join(TASKS)}, got {task!r}")
        try:
            prediction = _read_task(prediction, task, without_thinking(text), size, coordinates, resized)
        except AnswerError as error:
            prediction = _failed(prediction, task, str(error))
    return prediction


def read_answer(
    image_id: str, text: str, size: tuple[int, int], coordinates: str, resized: tuple[int, int] | None = None
) -> Prediction:
    """
    The prediction that one answer to whatever question is: whether there are artifacts, and what it says of places,
    reasons and classes. Boxes say "yes" and an empty list of them "no", but not against what the text says.

    Args:
        image_id, size, coordinates, resized: See [`read_answers`].
        text (`str`): The answer.
    """
    prediction = Prediction(image_id)
    try:
        text = without_thinking(text)
    except AnswerError as error:
        return _failed(prediction, "answer", str(error))
    found = find_boxes(text, size, coordinates, resized)
    prediction = _failed(prediction, "answer", *found.failures)
    prediction = replace(prediction, explanation=_explanation_amid(text), classes=_classes_amid(text))
    try:
        has_artifact = _implied(text, found)
    except AnswerError as error:
        return _failed(prediction, "answer", str(error))
    boxes = found.boxes or (None if has_artifact or found.failures else ())
    return replace(prediction, has_artifact=has_artifact, boxes=boxes)


def without_thinking(text: str) -> str:
    """
    An answer without what a model thinks aloud before it, and what is in `<answer>` tags where there are any.

    Raises:
        AnswerError: nothing is left, or the text is too long.
    """
    # Templates of chats may open the thinking themselves, so that it only ends in the text.
    text = _THOUGHT_END.split(text)[-1]
    text, *unfinished = _THOUGHT_START.split(text)
    if answers := _ANSWER.findall(text):
        text = answers[-1]
    text = _SPECIAL.sub(" ", text).strip()
    if not text:
        raise AnswerError("it ends before the thinking does" if unfinished else "it is empty")
    if len(text) > _MAX_LENGTH:
        raise AnswerError(f"it is too long: {len(text):,} characters, over {_MAX_LENGTH:,}")
    return text


def read_explanation(text: str) -> str:
    """
    The explanation of an answer: that field of its JSON, or the whole of it, on one line.

    Raises:
        AnswerError: it is JSON without an explanation.
    """
    if field := _FIELD.search(text):
        explanation = unescaped(field[1] if field[1] is not None else field[2])
    elif re.match(r"\s*(?:```\w*\s*)?[\[{]", text):
        raise AnswerError("it is JSON without an explanation that is whole")
    else:
        explanation = text
    if not (explanation := " ".join(explanation.split())):
        raise AnswerError("its explanation is empty")
    return explanation


def read_classes(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """
    The classes of SynArtifact that an answer lists, by number, by line, by comma or in JSON; what follows a colon is a
    remark.

    Args:
        text (`str`): The answer.

    Returns:
        `tuple[tuple[str, ...], tuple[str, ...]]`: The classes, each once, none for "No artifacts"; and why other
        items of the list are none.

    Raises:
        AnswerError: it names none, or both classes and "No artifacts".
    """
    items = [item for item in _items(text) if item]
    classes = {item: _class_of(item) for item in items}
    found = dict.fromkeys(known for known in classes.values() if known)
    unknown = tuple(f"no such class: {item!r}" for item, known in classes.items() if known is None)
    if NO_ARTIFACTS in found and len(found) > 1:
        raise AnswerError("it names classes and says that there are none")
    if not found and not _EMPTY_LIST.search(text):
        raise AnswerError("; ".join(unknown[:3]) or "it names no class")
    return tuple(known.name for known in found if known != NO_ARTIFACTS), unknown


def _read_task(
    prediction: Prediction,
    task: str,
    text: str,
    size: tuple[int, int],
    coordinates: str,
    resized: tuple[int, int] | None,
) -> Prediction:
    if task == "detection":
        return replace(prediction, has_artifact=read_yes_no(text))
    if task == "localization":
        found = find_boxes(text, size, coordinates, resized)
        prediction = _failed(prediction, task, *found.failures)
        return replace(prediction, boxes=_places(text, found))
    if task == "explanation":
        return replace(prediction, explanation=read_explanation(text))
    classes, unknown = read_classes(text)
    return _failed(replace(prediction, classes=classes), task, *unknown)


def _failed(prediction: Prediction, task: str, *reasons: str) -> Prediction:
    return replace(prediction, failures=(*prediction.failures, *(f"{task}: {reason}" for reason in reasons)))


def _places(text: str, found: BoxAnswer) -> tuple[Box, ...] | None:
    """The boxes of an answer to "where?", empty where it says that there are none; `None` with failures of boxes."""
    if found.boxes:
        if _denies(text):
            raise AnswerError("it gives boxes and says that there are no artifacts")
        return found.boxes
    if found.failures:
        return None
    if found.is_empty:
        return ()
    try:
        has_artifact = read_yes_no(text)
    except AnswerError as error:
        raise AnswerError(f"it has no box, and {error}") from error
    if has_artifact:
        raise AnswerError("it says that there are artifacts, without a box")
    return ()


def _denies(text: str) -> bool:
    try:
        return statements(text) == {False}
    except AnswerError:
        return False


def _implied(text: str, found: BoxAnswer) -> bool:
    """Whether there are artifacts, by a text and its boxes."""
    has_boxes = bool(found.boxes or found.failures)
    try:
        says = read_yes_no(text)
    except UnsaidError:
        if has_boxes or found.is_empty:
            return has_boxes
        raise
    if (says and found.is_empty) or (not says and has_boxes):
        raise AnswerError("its boxes contradict what it says")
    return says


def _explanation_amid(text: str) -> str | None:
    """The explanation in an answer to whatever question: its field, or the sentences beside a yes or no."""
    if field := _FIELD.search(text):
        return " ".join(unescaped(field[1] if field[1] is not None else field[2]).split()) or None
    prose = _STRUCTURE.sub(" ", text)
    for _ in range(_MOST_BRACKETS):
        prose = _BRACKETS.sub(" ", prose)
    # What is left open was cut off.
    prose = re.split(r"[\[{]", prose, maxsplit=1)[0].strip()
    prose = " ".join(LEAD.sub("", prose).split())
    return prose.lstrip(" .,;:!*-") if re.search(r"[^\W\d_]", prose) else None


def _classes_amid(text: str) -> tuple[str, ...] | None:
    """The classes in an answer to whatever question, if its JSON has a field for them."""
    if not re.search(r"[\"']classes[\"']\s*:", text):
        return None
    try:
        return read_classes(text)[0]
    except AnswerError:
        return None


def unescaped(text: str) -> str:
    """The content of a JSON string; as it stands where its escapes are none of JSON's."""
    try:
        return str(json.loads(f'"{text}"', strict=False)).encode("utf-8", "replace").decode()
    except json.JSONDecodeError:
        return text


def _items(text: str) -> list[str]:
    """The entries of a list, without their bullets and remarks."""
    if fields := _CLASS_FIELD.findall(text):
        return _quoted(" ".join(fields))
    if re.match(r"\s*(?:```\w*\s*)?\[", text):
        return _quoted(text)
    lines = [_BULLET.sub("", line) for line in re.split(r"[\n;]|(?<=[.,])\s+(?=\d+[.)]\s)", text)]
    # A line that ends with a colon introduces the list.
    lines = [line.partition(":")[0] for line in lines if not line.rstrip(" *").endswith(":")]
    return [item.strip(" .*_`") for line in lines for item in line.split(",")]


def _quoted(text: str) -> list[str]:
    return [(double or single).partition(":")[0].strip(" .") for double, single in _QUOTED.findall(text)]


def _class_of(item: str) -> ArtifactClass | None:
    return NO_ARTIFACTS if item.lower() in _NO_CLASS else find_class(item)


def prediction_of(
    image_id: str, answers: Mapping[str, str], errors: Mapping[str, str], size: tuple[int, int], form: BoxFormat
) -> Prediction:
    """What answers to questions say of an image; a question without an answer is a failure."""
    prediction = read_answers(image_id, answers, size, form.coordinates, form.resized(size))
    failures = tuple(f"{task}: there is no answer: {reason}" for task, reason in errors.items())
    return replace(prediction, failures=prediction.failures + failures)
