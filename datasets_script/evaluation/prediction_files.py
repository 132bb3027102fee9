"""Files of predictions: JSON lines, one an image, after a line that says where they come from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..detection.answers import prediction_of, read_answer
from ..detection.box_answers import meant_box, shown
from ..detection.questions import TASKS
from ..schema.boxes import Box
from ..schema.prediction import Prediction
from ..utils.errors import UserError
from ..utils.files import write_text
from ..vlm.conventions import CONVENTIONS, BoxFormat


_HEADER = "artiagent"
_ANSWER_FIELDS = frozenset({"answer", "answers", "errors"})
_VALUE_FIELDS = frozenset({"has_artifact", "boxes", "mask", "explanation", "classes"})


@dataclass(frozen=True)
class PredictionFile:
    """
    What a file holds.

    Attributes:
        predictions (`dict[str, Prediction]`): By id, in the file's order. Images of the benchmark that are missing are
            not in it: they are failures, not a "no".
        missing (`tuple[str, ...]`): Ids of those.
        header (`dict`): What `artiagent predict` recorded; empty for other files.
    """

    predictions: dict[str, Prediction]
    missing: tuple[str, ...] = ()
    header: dict[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """The model's name, empty where it is not recorded."""
        return str(self.header.get("model", {}).get("model", ""))


def read_predictions(
    path: Path, sizes: Mapping[str, tuple[int, int]], coordinates: str | None = None
) -> PredictionFile:
    """
    Reads a file of predictions for the images of a benchmark.

    A line is an object with `"id"` and either what a model answered, `"answer"` (one text) or `"answers"` (texts by
    question: `"detection"`, `"localization"`, `"explanation"`, `"classification"`; with `"errors"` for questions that
    got none), or what it predicts: `"has_artifact"`, `"boxes"` (`[x_min, y_min, x_max, y_max]`, exclusive maxima, px
    of the stored image), `"mask"` (an image, relative to the file), `"explanation"` and `"classes"`.

    Args:
        path (`Path`): The file.
        sizes (`Mapping[str, tuple[int, int]]`): Width and height of each image of the benchmark, px, by id.
        coordinates (`str`, *optional*): Convention of boxes in answers; by default what the file records, or
            `"pixel"`.

    Raises:
        UserError: there is no such file, or a line is not as above, has an id twice or one that the benchmark has not.
    """
    header: dict[str, Any] = {}
    lines: dict[str, int] = {}
    predictions: dict[str, Prediction] = {}
    form = BoxFormat(coordinates or "pixel")
    for number, record in _read_lines(path):
        if number == 1 and _HEADER in record:
            header = _read_header(record[_HEADER], path)
            form = _box_format(header, coordinates, path)
            continue
        where = f"{path}, line {number}"
        image_id = record.get("id")
        if not isinstance(image_id, str):
            raise UserError(f'{where}: "id" must be a text, got {image_id!r}')
        if image_id in lines:
            raise UserError(f"{where}: id '{image_id}' is on line {lines[image_id]} already")
        if image_id not in sizes:
            raise UserError(f"{where}: the benchmark has no image '{image_id}'")
        lines[image_id] = number
        predictions[image_id] = _read_record(record, where, path.parent, sizes[image_id], form)
    return PredictionFile(predictions, tuple(name for name in sizes if name not in predictions), header)


def begin_predictions(path: Path, header: Mapping[str, Any]) -> set[str]:
    """
    Makes a file with a header, or prepares one to be continued: half a last line, left by a kill, is dropped.

    Args:
        path (`Path`): The file.
        header (`Mapping[str, Any]`): What makes the answers what they are, JSON-serialisable.

    Returns:
        `set[str]`: Ids of the images that are there already.

    Raises:
        UserError: it is a file of something else, or of other settings.
    """
    if not path.exists():
        write_text(path, _line({_HEADER: header}))
        return set()
    _drop_half_line(path)
    records = (record for _, record in _read_lines(path))
    recorded = next(records, {}).get(_HEADER)
    if recorded is None:
        raise UserError(f"'{path}' was not written by `artiagent predict`: give another --out")
    settings = json.loads(json.dumps(header))
    changed = [name for name in {**recorded, **settings} if recorded.get(name) != settings.get(name)]
    if changed:
        name = changed[0]
        was, now = (_in_words(made.get(name)) for made in (recorded, settings))
        raise UserError(
            f"'{path}' was begun with other settings ({', '.join(changed)}): {name} was {was} and is now {now}; "
            "repeat them, or give another --out"
        )
    return {record["id"] for record in records}


def append_answers(path: Path, image_id: str, answers: Mapping[str, str], errors: Mapping[str, str]) -> None:
    """Adds what was answered for an image, and why some questions got no answer; on disk when this returns."""
    record = {"id": image_id, "answers": answers, **({"errors": errors} if errors else {})}
    with path.open("ab") as file:
        file.write(_line(record).encode())
        file.flush()
        os.fsync(file.fileno())


def _in_words(value: Any) -> str:
    """A setting; of the questions only which they are and their versions."""
    if isinstance(value, dict):
        value = {name: part.get("version") if isinstance(part, dict) else part for name, part in value.items()}
    return repr(value)


def _line(record: Mapping[str, Any]) -> str:
    # Half characters, which models may escape and UTF-8 cannot hold, stay escaped.
    return json.dumps(record) + "\n"


def _drop_half_line(path: Path) -> None:
    content = path.read_bytes()
    if not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def _read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        file = path.open(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"PREDICTIONS must be a file of JSON lines, got '{path}': {error.strerror}") from error
    with file:
        number = 0
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    record = json.loads(line)
                    if not isinstance(record, dict):
                        raise UserError(f"{path}, line {number}: it must be a JSON object, got {line.strip()[:40]!r}")
                    yield number, record
        except UnicodeDecodeError as error:
            raise UserError(f"{path}, after line {number}: it is not UTF-8") from error
        except (json.JSONDecodeError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: it is not JSON ({error})") from error


def _read_header(header: Any, path: Path) -> dict[str, Any]:
    if not isinstance(header, dict) or not isinstance(header.get("model", {}), dict):
        raise UserError(f'{path}, line 1: "{_HEADER}" must be what `artiagent predict` records, got {header!r:.80}')
    for name in ("min_pixels", "max_pixels"):
        if not isinstance(header.get(name, 0), int):
            raise UserError(f'{path}, line 1: "{name}" must be a whole number, got {header[name]!r}')
    return header


def _box_format(header: Mapping[str, Any], coordinates: str | None, path: Path) -> BoxFormat:
    recorded = header.get("coordinates", "pixel")
    if recorded not in CONVENTIONS:
        raise UserError(f'{path}, line 1: "coordinates" must be among {", ".join(CONVENTIONS)}, got {recorded!r}')
    bounds = {name: header[name] for name in ("min_pixels", "max_pixels") if header.get(name)}
    try:
        return BoxFormat(coordinates or recorded, **bounds)
    except UserError as error:
        raise UserError(f"{path}, line 1: {error}") from error


def _read_record(
    record: Mapping[str, Any], where: str, folder: Path, size: tuple[int, int], form: BoxFormat
) -> Prediction:
    fields = record.keys() - {"id"}
    if unknown := sorted(fields - _ANSWER_FIELDS - _VALUE_FIELDS):
        known = ", ".join(sorted(_ANSWER_FIELDS | _VALUE_FIELDS))
        raise UserError(f"{where}: fields must be among id, {known}, got '{unknown[0]}'")
    if not fields:
        raise UserError(f'{where}: it must have an "answer", "answers" or what is predicted, such as "has_artifact"')
    if fields & _VALUE_FIELDS:
        if both := sorted(fields & _ANSWER_FIELDS):
            raise UserError(f"{where}: '{both[0]}' must stand alone, got '{min(fields & _VALUE_FIELDS)}' beside it")
        return _read_values(record, where, folder, size)
    if "answer" in fields and len(fields) > 1:
        raise UserError(f'{where}: it must have "answer" or "answers", got {", ".join(sorted(fields))}')
    return _read_texts(record, where, size, form)


def _read_texts(record: Mapping[str, Any], where: str, size: tuple[int, int], form: BoxFormat) -> Prediction:
    if "answer" in record:
        if not isinstance(record["answer"], str):
            raise UserError(f'{where}: "answer" must be a text, got {record["answer"]!r}')
        return read_answer(record["id"], record["answer"], size, form.coordinates, form.resized(size))
    texts = {name: record.get(name, {}) for name in ("answers", "errors")}
    for name, by_task in texts.items():
        if not isinstance(by_task, dict) or not all(isinstance(text, str) for text in by_task.values()):
            raise UserError(f'{where}: "{name}" must be an object of texts, got {by_task!r}')
        if odd := sorted(by_task.keys() - set(TASKS)):
            raise UserError(f"{where}: \"{name}\" must be to {', '.join(TASKS)}, got '{odd[0]}'")
    return prediction_of(record["id"], texts["answers"], texts["errors"], size, form)


def _read_values(record: Mapping[str, Any], where: str, folder: Path, size: tuple[int, int]) -> Prediction:
    for name, kind, wanted in (
        ("has_artifact", bool, "true, false or null"),
        ("boxes", list, "a list"),
        ("mask", str, "the path of an image"),
        ("explanation", str, "a text"),
        ("classes", list, "a list of texts"),
    ):
        value = record.get(name)
        if value is not None and not isinstance(value, kind):
            raise UserError(f'{where}: "{name}" must be {wanted}, got {value!r}')
    if odd := [name for name in record.get("classes") or () if not isinstance(name, str)]:
        raise UserError(f'{where}: "classes" must be a list of texts, got {odd[0]!r} in it')
    boxes, failures = _read_boxes(record.get("boxes") or (), where, size)
    return Prediction(
        record["id"],
        has_artifact=record.get("has_artifact"),
        boxes=None if record.get("boxes") is None or (failures and not boxes) else boxes,
        mask=_read_mask(record, where, folder),
        explanation=record.get("explanation"),
        classes=None if record.get("classes") is None else tuple(record["classes"]),
        failures=failures,
    )


def _read_boxes(boxes: Iterable[Any], where: str, size: tuple[int, int]) -> tuple[tuple[Box, ...], tuple[str, ...]]:
    """Those that can be meant, and why others cannot."""
    meant, failures = [], []
    for box in boxes:
        numbers = isinstance(box, list) and len(box) == 4 and all(type(value) in (int, float) for value in box)
        if not numbers:
            raise UserError(f'{where}: "boxes" must be a list of [x_min, y_min, x_max, y_max], got {box!r} in it')
        try:
            meant.append(meant_box(tuple(box), size, "pixel"))
        except ValueError as error:
            failures.append(f"boxes: {shown(box)}: {error}")
    return tuple(meant), tuple(failures)


def _read_mask(record: Mapping[str, Any], where: str, folder: Path) -> Path | None:
    if record.get("mask") is None:
        return None
    if record.get("boxes") is not None:
        raise UserError(f'{where}: "mask" stands in place of "boxes", got both')
    if not (path := folder / record["mask"]).is_file():
        raise UserError(f"{where}: \"mask\" must be an image beside the file, found no '{path}'")
    return path
