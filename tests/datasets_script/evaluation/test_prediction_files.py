"""Files of predictions: read with clear errors, and continued after whatever stopped their writer."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from datasets_script.evaluation.prediction_files import append_answers, begin_predictions, read_predictions
from datasets_script.utils.errors import UserError


SIZES = {"a": (200, 100), "b": (64, 64), "c": (56, 28)}
HEADER = {"model": {"model": "org/m", "revision": "0"}, "coordinates": "qwen3", "questions": {}}


def write(path, *records):
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


def test_every_form_of_a_line_is_read_and_missing_images_are_told(tmp_path):
    Image.new("L", (64, 64)).save(tmp_path / "b.png")
    path = write(
        tmp_path / "predictions.jsonl",
        {"id": "b", "has_artifact": True, "mask": "b.png", "explanation": "Six.", "classes": ["Omitted components"]},
        {"id": "a", "answers": {"localization": "[10, 20, 30, 40]"}, "errors": {"detection": "refused"}},
    )
    file = read_predictions(path, SIZES)
    assert list(file.predictions) == ["b", "a"] and file.missing == ("c",) and file.model == ""
    assert file.predictions["b"].mask == tmp_path / "b.png" and file.predictions["b"].boxes is None
    assert file.predictions["b"].classes == ("Omitted components",)
    assert file.predictions["a"].boxes == ((10, 20, 30, 40),) and file.predictions["a"].has_artifact is None
    assert file.predictions["a"].failures == ("detection: there is no answer: refused",)
    assert read_predictions(path, SIZES, "qwen3").predictions["a"].boxes == ((2, 2, 6, 4),)


def test_boxes_given_as_such_are_pixels_and_those_that_cannot_be_are_failures(tmp_path):
    boxes = [[10, 20, 30.5, 40], [10, 20, 900, 40]]
    path = write(
        tmp_path / "p.jsonl", {"id": "a", "boxes": boxes}, {"id": "b", "boxes": []}, {"id": "c", "boxes": boxes}
    )
    predictions = read_predictions(path, SIZES, "qwen3").predictions
    assert predictions["a"].boxes == ((10, 20, 30.5, 40),) and "out of the image" in predictions["a"].failures[0]
    assert predictions["b"].boxes == () and not predictions["b"].failures
    assert predictions["c"].boxes is None and len(predictions["c"].failures) == 2


def test_boxes_of_x_y_width_and_height_are_read_by_name_and_refused_under_another(tmp_path):
    path = write(tmp_path / "p.jsonl", {"id": "a", "bbox_xywh": [[134, 71, 50, 27.5]]}, {"id": "b", "bbox_xywh": []})
    predictions = read_predictions(path, SIZES).predictions
    assert predictions["a"].boxes == ((134, 71, 184, 98.5),) and predictions["b"].boxes == ()
    for record, message in (
        ({"boxes": [[1, 2, 3, 4], [134, 71, 50, 57]]}, r"line 1: .*\[134, 71, 50, 57\] in it, .* under \"bbox_xywh\""),
        ({"boxes": [], "bbox_xywh": []}, 'must have either "boxes" or "bbox_xywh", got both'),
        ({"bbox_xywh": [[1, 2, -3, 4]]}, r"must be a list of \[x, y, width, height\], got \[1, 2, -3, 4\]"),
    ):
        with pytest.raises(UserError, match=message):
            read_predictions(write(tmp_path / "q.jsonl", {"id": "a", **record}), SIZES)


def test_the_recorded_convention_counts_unless_another_is_given(tmp_path):
    record = {"id": "a", "answer": "Yes, at [100, 200, 500, 400]."}
    path = write(tmp_path / "p.jsonl", {"artiagent": HEADER}, record)
    file = read_predictions(path, SIZES)
    assert file.predictions["a"].boxes == ((20, 20, 100, 40),) and file.model == "org/m"
    assert read_predictions(path, SIZES, "pixel").predictions["a"].boxes is None
    # 56 × 28 becomes 112 × 56 within these bounds.
    bounds = {"coordinates": "qwen2.5", "min_pixels": 112 * 56, "max_pixels": 112 * 56}
    path = write(tmp_path / "q.jsonl", {"artiagent": bounds}, {"id": "c", "answer": "[10, 20, 100, 40]"})
    assert read_predictions(path, SIZES).predictions["c"].boxes == ((5, 10, 50, 20),)


@pytest.mark.parametrize("header", [[], {"model": "gpt"}, {"coordinates": "qwen2.5", "min_pixels": "x"}])
def test_a_first_line_that_is_not_ours_is_told(tmp_path, header):
    path = write(tmp_path / "p.jsonl", {"artiagent": header})
    with pytest.raises(UserError, match="line 1: .* must be"):
        read_predictions(path, SIZES)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: must be JSON, got something else"),
        ("[]", "line 2: must be a JSON object"),
        ('{"answer": "No"}', 'line 2: "id" must be a text'),
        ('{"id": "a", "answer": "No"}', "line 2: \"id\" must be unique, got 'a', which is on line 1 too"),
        ('{"id": "z", "answer": "No"}', "line 2: \"id\" must be that of an image of the benchmark, got 'z'"),
        ('{"id": "b"}', 'line 2: must have "answer", "answers" or a value'),
        ('{"id": "b", "has_artifacts": true}', "line 2: fields must be among .*, got 'has_artifacts'"),
        ('{"id": "b", "answer": "No", "boxes": []}', "line 2: 'answer' must be alone, got 'boxes'"),
        (
            '{"id": "b", "answer": "No", "answers": {}}',
            'line 2: must have either "answer" or "answers", got answer, answers',
        ),
        ('{"id": "b", "answer": 1}', 'line 2: "answer" must be a text, got 1'),
        ('{"id": "b", "answers": {"detection": 1}}', 'line 2: "answers" must be an object of texts'),
        (
            '{"id": "b", "answers": {"detected": "No"}}',
            "line 2: the keys of \"answers\" must be among .*, got 'detected'",
        ),
        ('{"id": "b", "has_artifact": 1}', 'line 2: "has_artifact" must be true, false or null, got 1'),
        ('{"id": "b", "boxes": [[1, 2, 3]]}', 'line 2: "boxes" must be a list of .*, got .1, 2, 3. in it'),
        (
            '{"id": "b", "mask": "none.png"}',
            'line 2: "mask" must be an image file, relative to the predictions, found no',
        ),
        ('{"id": "b", "score": 1.5}', 'line 2: "score" must be a number from 0 to 1, got 1.5'),
        ('{"id": "b", "artifact_map": 3}', 'line 2: "artifact_map" must be the path of an image, got 3'),
        ('{"id": "b", "classes": [1]}', 'line 2: "classes" must be a list of texts, got 1'),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path, line, message):
    path = tmp_path / "p.jsonl"
    path.write_text(f'{{"id": "a", "answer": "No"}}\n{line}\n')
    with pytest.raises(UserError, match=message):
        read_predictions(path, SIZES)


def test_files_that_are_none_are_told(tmp_path):
    with pytest.raises(UserError, match="PREDICTIONS must be a file of JSON lines.*No such file"):
        read_predictions(tmp_path / "none.jsonl", SIZES)
    (tmp_path / "p.jsonl").write_bytes(b'{"id": "\xff"}\n')
    with pytest.raises(UserError, match="must be UTF-8"):
        read_predictions(tmp_path / "p.jsonl", SIZES)
    write(tmp_path / "q.jsonl", {"artiagent": {"coordinates": "polar"}})
    with pytest.raises(UserError, match="line 1: \"coordinates\" must be among .*, got 'polar'"):
        read_predictions(tmp_path / "q.jsonl", SIZES)
    write(tmp_path / "r.jsonl", {"artiagent": {"coordinates": "qwen2.5", "max_pixels": 3000}})
    with pytest.raises(UserError, match="line 1: min_pixels must be .* at most max_pixels, got 3136 and 3000"):
        read_predictions(tmp_path / "r.jsonl", SIZES)


def test_a_killed_run_leaves_a_file_to_go_on_with_at_whatever_byte(tmp_path):
    path = tmp_path / "p.jsonl"
    assert begin_predictions(path, HEADER) == set()
    append_answers(path, "a", {"detection": "Yes \ud83d ü"}, {})
    append_answers(path, "b", {"detection": "No."}, {})
    whole = path.read_bytes()
    first = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    for end in range(first, len(whole) + 1):
        path.write_bytes(whole[:end])
        done = begin_predictions(path, HEADER)
        assert done == ({"a", "b"} if end == len(whole) else {"a"})
        assert path.read_bytes() == (whole if end == len(whole) else whole[:first])
    assert read_predictions(path, SIZES).predictions["a"].has_artifact is True


def test_a_run_with_other_settings_or_a_file_of_someone_else_is_refused(tmp_path):
    begin_predictions(tmp_path / "p.jsonl", HEADER)
    with pytest.raises(UserError, match=r"other settings \(coordinates\): coordinates was 'qwen3' and is now 'llava'"):
        begin_predictions(tmp_path / "p.jsonl", HEADER | {"coordinates": "llava"})
    write(tmp_path / "q.jsonl", {"id": "a", "answer": "No"})
    with pytest.raises(UserError, match="--out must be a new file or one written by `artiagent predict`"):
        begin_predictions(tmp_path / "q.jsonl", HEADER)


@pytest.mark.parametrize(
    "content", [b'{"id": "a"}\n{"id": "b"}', b"one line", b"\x89PNG\r\n\x1a\n\0\0", b"", b"[1]\n3"]
)
def test_a_file_of_somebody_else_stays_as_it_was(tmp_path, content):
    path = tmp_path / "p.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match="--out must be a new file or one written by `artiagent predict`"):
        begin_predictions(path, HEADER)
    assert path.read_bytes() == content
