"""Prediction files: JSON Lines with one line per image, after a header line that records how they were made."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..detection.answers import prediction_of, read_answer
from ..detection.box_answers import in_order, meant_box, shown
from ..detection.questions import TASKS
from ..schema.boxes import Box
from ..schema.prediction import Prediction
from ..utils.errors import UserError
from ..utils.files import write_text
from ..vlm.conventions import CONVENTIONS, BoxFormat


_HEADER = "artiagent"
_ANSWER_FIELDS = frozenset({"answer", "answers", "errors"})
_VALUE_FIELDS = frozenset(
    {"has_artifact", "score", "boxes", "bbox_xywh", "mask", "artifact_map", "explanation", "classes"}
)


@dataclass(frozen=True)
class PredictionFile:
    """
    Content of a prediction file.

    Attributes:
        predictions (`dict[str, Prediction]`): Predictions by image id, in the order of the file.
        missing (`tuple[str, ...]`): Ids of images of the benchmark without a prediction; they count as failures, not
            as a "no".
        header (`dict`): Header that `artiagent predict` recorded; empty for other files.
    """

    predictions: dict[str, Prediction]
    missing: tuple[str, ...] = ()
    header: dict[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """Return the name of the model, or an empty string if it is not recorded."""
        return str(self.header.get("model", {}).get("model", ""))


def read_predictions(
    path: Path, sizes: Mapping[str, tuple[int, int]], coordinates: str | None = None
) -> PredictionFile:
    """
    Read the predictions for the images of a benchmark.

    Each line is a JSON object with the image's `"id"` and one of:

    - `"answer"`: the model's raw text;
    - `"answers"`: its raw texts by question (`"detection"`, `"localization"`, `"explanation"`, `"classification"`),
      and `"errors"` for questions without an answer;
    - any of the values `"has_artifact"`, `"score"` (in [0, 1]), `"boxes"` (`[x_min, y_min, x_max, y_max]`, exclusive
      maxima, in pixels of the stored image) or `"bbox_xywh"` (`[x, y, width, height]`), `"mask"` and `"artifact_map"`
      (paths of images, relative to the file), `"explanation"` and `"classes"`.

    Args:
        path (`Path`): JSON Lines file.
        sizes (`Mapping[str, tuple[int, int]]`): Width and height in pixels of each image of the benchmark, by id.
        coordinates (`str`, *optional*): Convention of the boxes in answers; by default the one recorded in the file,
            else `"pixel"`.

    Raises:
        UserError: The file cannot be read; or a line has another form, a repeated id, or one that is not in the
            benchmark.
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
            raise UserError(f'{where}: "id" must be unique, got {image_id!r}, which is on line {lines[image_id]} too')
        if image_id not in sizes:
            raise UserError(f'{where}: "id" must be that of an image of the benchmark, got {image_id!r}')
        lines[image_id] = number
        predictions[image_id] = _read_record(record, where, path.parent, sizes[image_id], form)
    return PredictionFile(predictions, tuple(name for name in sizes if name not in predictions), header)


def begin_predictions(path: Path, header: Mapping[str, Any]) -> set[str]:
    """
    Create a file with a header, or prepare an existing one to be continued. An incomplete last line, left when a
    process was killed, is removed, and so are lines with errors, whose images are asked about again.

    Args:
        path (`Path`): JSON Lines file.
        header (`Mapping[str, Any]`): Everything that the answers depend on, JSON-serialisable.

    Returns:
        `set[str]`: Ids of the images that are already in the file, with answers to all questions.

    Raises:
        UserError: The file was not written by `artiagent predict`, or with other settings.
    """
    if not path.exists():
        write_text(path, _line({_HEADER: header}))
        return set()
    recorded = _recorded_header(path)
    if recorded is None:
        raise UserError(
            f"--out must be a new file or one written by `artiagent predict`, got '{path}'; choose another file. This "
            "one is as it was"
        )
    _drop_incomplete_line(path)
    first, *records = [record for _, record in _read_lines(path)]
    settings = json.loads(json.dumps(header))
    changed = [name for name in {**recorded, **settings} if recorded.get(name) != settings.get(name)]
    if changed:
        name = changed[0]
        was, now = (_in_words(made.get(name)) for made in (recorded, settings))
        raise UserError(
            f"'{path}' was written with other settings ({', '.join(changed)}): {name} was {was} and is now {now}; "
            "use the same settings, or choose another --out"
        )
    if any(record.get("errors") for record in records):
        records = [record for record in records if not record.get("errors")]
        write_text(path, "".join(map(_line, (first, *records))))
    return {record["id"] for record in records}


def append_answers(path: Path, image_id: str, answers: Mapping[str, str], errors: Mapping[str, str]) -> None:
    """
    Append the answers about an image, see [`append_record`].

    Args:
        path (`Path`): File made by [`begin_predictions`].
        image_id (`str`): Id of the image.
        answers (`Mapping[str, str]`): Raw answers by question.
        errors (`Mapping[str, str]`): Reasons of questions without an answer, by question.
    """
    append_record(path, {"id": image_id, "answers": answers, **({"errors": errors} if errors else {})})


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """
    Append the line of an image; it is on disk when this returns.

    Args:
        path (`Path`): File made by [`begin_predictions`].
        record (`Mapping[str, Any]`): A line as [`read_predictions`] reads it, JSON-serialisable.
    """
    with path.open("ab") as file:
        file.write(_line(record).encode())
        file.flush()
        os.fsync(file.fileno())


def _in_words(value: Any) -> str:
    """Format a setting for a message; of questions, only names and versions."""
    if isinstance(value, dict):
        value = {name: part.get("version") if isinstance(part, dict) else part for name, part in value.items()}
    return repr(value)


def _line(record: Mapping[str, Any]) -> str:
    # ASCII only: models may write lone surrogates, which UTF-8 cannot encode.
    return json.dumps(record) + "\n"


def _recorded_header(path: Path) -> dict[str, Any] | None:
    """Return the header of a file that [`begin_predictions`] made; `None` if the file is another one."""
    with path.open("rb") as file:
        line = file.readline()
    try:
        first = json.loads(line)
    except (ValueError, RecursionError):
        return None
    recorded = first.get(_HEADER) if isinstance(first, dict) and line.endswith(b"\n") else None
    return recorded if isinstance(recorded, dict) else None


def _drop_incomplete_line(path: Path) -> None:
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
                        raise UserError(f"{path}, line {number}: must be a JSON object, got {line.strip()[:40]!r}")
                    yield number, record
        except UnicodeDecodeError as error:
            raise UserError(f"{path}, after line {number}: must be UTF-8, got other bytes") from error
        except (json.JSONDecodeError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: must be JSON, got something else ({error})") from error


def _read_header(header: Any, path: Path) -> dict[str, Any]:
    if not isinstance(header, dict) or not isinstance(header.get("model", {}), dict):
        raise UserError(f'{path}, line 1: "{_HEADER}" must be as `artiagent predict` records it, got {header!r:.80}')
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
        raise UserError(f'{where}: must have "answer", "answers" or a value such as "has_artifact", got only "id"')
    if fields & _VALUE_FIELDS:
        if both := sorted(fields & _ANSWER_FIELDS):
            raise UserError(f"{where}: '{both[0]}' must be alone, got '{min(fields & _VALUE_FIELDS)}' next to it")
        return _read_values(record, where, folder, size)
    if "answer" in fields and len(fields) > 1:
        raise UserError(f'{where}: must have either "answer" or "answers", got {", ".join(sorted(fields))}')
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
            raise UserError(f"{where}: the keys of \"{name}\" must be among {', '.join(TASKS)}, got '{odd[0]}'")
    return prediction_of(record["id"], texts["answers"], texts["errors"], size, form)


def _read_values(record: Mapping[str, Any], where: str, folder: Path, size: tuple[int, int]) -> Prediction:
    for name, kind, wanted in (
        ("has_artifact", bool, "true, false or null"),
        ("boxes", list, "a list"),
        ("bbox_xywh", list, "a list"),
        ("mask", str, "the path of an image"),
        ("artifact_map", str, "the path of an image"),
        ("explanation", str, "a text"),
        ("classes", list, "a list of texts"),
    ):
        value = record.get(name)
        if value is not None and not isinstance(value, kind):
            raise UserError(f'{where}: "{name}" must be {wanted}, got {value!r}')
    score = record.get("score")
    if score is not None and not (type(score) in (int, float) and 0 <= score <= 1):
        raise UserError(f'{where}: "score" must be a number from 0 to 1, got {score!r}')
    if odd := [name for name in record.get("classes") or () if not isinstance(name, str)]:
        raise UserError(f'{where}: "classes" must be a list of texts, got {odd[0]!r} in it')
    given = _given_boxes(record, where)
    boxes, failures = _read_boxes(given or (), where, size)
    return Prediction(
        record["id"],
        has_artifact=record.get("has_artifact"),
        score=None if score is None else float(score),
        boxes=None if given is None or (failures and not boxes) else boxes,
        mask=_read_path("mask", record, where, folder),
        artifact_map=_read_path("artifact_map", record, where, folder),
        explanation=record.get("explanation"),
        classes=None if record.get("classes") is None else tuple(record["classes"]),
        failures=failures,
    )


def _given_boxes(record: Mapping[str, Any], where: str) -> list[Any] | None:
    """Return the boxes of a record by their corners, `None` if it has none."""
    boxes, sized = record.get("boxes"), record.get("bbox_xywh")
    if boxes is not None and sized is not None:
        raise UserError(f'{where}: must have either "boxes" or "bbox_xywh", got both')
    for box in boxes or ():
        if _is_box(box) and not in_order(box):
            raise UserError(
                f'{where}: "boxes" must be a list of [x_min, y_min, x_max, y_max], got {box!r} in it, whose maxima '
                'are below its minima; give boxes of [x, y, width, height] under "bbox_xywh"'
            )
    if sized is None:
        return boxes
    if odd := [box for box in sized if not _is_box(box) or min(box[2:]) < 0]:
        raise UserError(f'{where}: "bbox_xywh" must be a list of [x, y, width, height], got {odd[0]!r} in it')
    return [[x, y, x + width, y + height] for x, y, width, height in sized]


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(type(value) in (int, float) for value in box)


def _read_boxes(boxes: Iterable[Any], where: str, size: tuple[int, int]) -> tuple[tuple[Box, ...], tuple[str, ...]]:
    """Return the boxes that can be read, and the reasons why others cannot."""
    meant, failures = [], []
    for box in boxes:
        if not _is_box(box):
            raise UserError(f'{where}: "boxes" must be a list of [x_min, y_min, x_max, y_max], got {box!r} in it')
        try:
            meant.append(meant_box(tuple(box), size, "pixel"))
        except ValueError as error:
            failures.append(f"boxes: {shown(box)}: {error}")
    return tuple(meant), tuple(failures)


def _read_path(name: str, record: Mapping[str, Any], where: str, folder: Path) -> Path | None:
    if record.get(name) is None:
        return None
    if not (path := folder / record[name]).is_file():
        raise UserError(f"{where}: \"{name}\" must be an image file, relative to the predictions, found no '{path}'")
    return path
