"""Predictions from the texts that a model answered about an image. An unreadable answer is a failure, never a "no"."""

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


# Far longer than any answer asked for: a model that repeats itself endlessly.
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
# Depth of objects in lists in objects with boxes; nothing deeper was asked for.
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
    Read a prediction from a model's answers to several questions about an image.

    Args:
        image_id (`str`): Id of the image.
        answers (`Mapping[str, str]`): Answers by task: `"detection"`, `"localization"`, `"explanation"`,
            `"classification"`; only those that were asked.
        size (`tuple[int, int]`): Width and height of the image in pixels.
        coordinates (`str`): Convention of the boxes, see [`~datasets_script.vlm.conventions.encode_box`].
        resized (`tuple[int, int]`, *optional*): See [`~datasets_script.vlm.conventions.encode_box`].

    Returns:
        `Prediction`: What cannot be read is `None`, or missing from `boxes` and `classes`, with the reason in
        `failures`.

    Raises:
        ValueError: A task is unknown.

    Example:

    ```python
    >>> read_answers("a.png", {"detection": "Yes.", "localization": "At [10, 20, 40, 50]."}, (64, 64), "pixel")
    Prediction(id='a.png', has_artifact=True, boxes=((10.0, 20.0, 40.0, 50.0),), mask=None, artifact_map=None, \
    score=None, explanation=None, classes=None, failures=())

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
    Read a prediction from a single answer to an unknown question: whether there are artifacts, and what the answer
    says about boxes, reasons and classes. Boxes count as "yes" and an empty list of boxes as "no", unless the text
    contradicts them.

    Args:
        image_id (`str`): Id of the image.
        text (`str`): The answer.
        size, coordinates, resized: See [`read_answers`].

    Returns:
        `Prediction`: See [`read_answers`].
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
    Strip an answer of the model's reasoning, and reduce it to the content of `<answer>` tags if there are any.

    Raises:
        AnswerError: Nothing is left, or the text is too long.
    """
    # A chat template may open the thinking itself, so that the text only holds its end.
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
    Read the explanation from an answer, on one line: the matching field of its JSON, or the whole text.

    Raises:
        AnswerError: It is JSON without an explanation.
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
    Read the classes of SynArtifact that an answer lists, by number, by line, by comma or in JSON. Text after a colon
    is a remark.

    Args:
        text (`str`): The answer.

    Returns:
        `tuple[tuple[str, ...], tuple[str, ...]]`: The classes, each once, none for "No artifacts"; and why the other
        items of the list are not classes.

    Raises:
        AnswerError: It names no class, or both classes and "No artifacts".
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
    """
    Return the boxes of an answer to "where?", empty if it says that there are none, `None` if none could be read.
    """
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
    """Return whether there are artifacts, by a text and its boxes."""
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
    """Return the explanation in an answer to an unknown question: its field, or the sentences beside a yes or no."""
    if field := _FIELD.search(text):
        return " ".join(unescaped(field[1] if field[1] is not None else field[2]).split()) or None
    prose = _STRUCTURE.sub(" ", text)
    for _ in range(_MOST_BRACKETS):
        prose = _BRACKETS.sub(" ", prose)
    # A bracket left open begins a structure that was cut off.
    prose = re.split(r"[\[{]", prose, maxsplit=1)[0].strip()
    prose = " ".join(LEAD.sub("", prose).split())
    return prose.lstrip(" .,;:!*-") if re.search(r"[^\W\d_]", prose) else None


def _classes_amid(text: str) -> tuple[str, ...] | None:
    """Return the classes in an answer to an unknown question, if its JSON has a field for them."""
    if not re.search(r"[\"']classes[\"']\s*:", text):
        return None
    try:
        return read_classes(text)[0]
    except AnswerError:
        return None


def unescaped(text: str) -> str:
    """Decode the content of a JSON string; return it unchanged if its escapes are not valid JSON."""
    try:
        return str(json.loads(f'"{text}"', strict=False)).encode("utf-8", "replace").decode()
    except json.JSONDecodeError:
        return text


def _items(text: str) -> list[str]:
    """Return the entries of a list, without their bullets and remarks."""
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
    """
    Read a prediction from answers and from errors of requests without an answer, which are failures.

    Args:
        image_id (`str`): Id of the image.
        answers (`Mapping[str, str]`): Answers by task, see [`read_answers`].
        errors (`Mapping[str, str]`): By task, why there is no answer.
        size (`tuple[int, int]`): Width and height of the image in pixels.
        form (`BoxFormat`): Format of the boxes.

    Returns:
        `Prediction`: See [`read_answers`].
    """
    prediction = read_answers(image_id, answers, size, form.coordinates, form.resized(size))
    failures = tuple(f"{task}: there is no answer: {reason}" for task, reason in errors.items())
    return replace(prediction, failures=prediction.failures + failures)
