"""Models' answers: whatever their style, what they say is found, and what they do not say is a failure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_script.detection.answers import read_answer, read_answers
from datasets_script.detection.box_answers import find_boxes
from datasets_script.detection.yes_no import AnswerError, read_yes_no
from datasets_script.vlm.conventions import CONVENTIONS, decode_box, encode_box, format_box, qwen2_5_size


SIZE = (200, 100)

YES = [
    "Yes",
    "**Yes**.",
    "Yes, the hand has six fingers, although the face is right.",
    "Yes, there are artifacts on the hand. There are no artifacts in the background.",
    "The image contains several visual artifacts.",
    "There are some noticeable distortions in the hand.",
    "Artifacts detected",
    '```json\n{"has_artifact": true}\n```',
    "{'has_artifact': True, 'boxes': [[1, 2, 30, 40]]}",
    '{"artifacts": [{"label": "six fingers"}]}',
    "To determine whether the image contains artifacts, I look at the hands. They are odd. Final answer: Yes",
    "Does the image have artifacts? Yes.",
    "\\boxed{Yes}",
    "First I look at the hands.\nThen at the face.\n\nyes",
    "The answer is: yes",
    "$\\boxed{\\text{Yes}}$",
    "I can identify the following artifacts: six fingers",
    "The image shows signs of artifacts: the hand is not connected to the arm.",
    "The image has artifacts and is not natural.",
    "There are visible artifacts, the fingers are not separated.",
    "There are artifacts that cannot be found in photos.",
    "Yes, the image has artifacts. The face does not have any issues.",
]
NO = [
    "No",
    "no.",
    "No, the image looks natural.",
    "No artifacts",
    "No artifacts.",
    "None",
    "I do not see any artifacts.",
    "I don't think there are any visible artifacts in this image.",
    "I can’t see any signs of artifacts or distortions.",
    "The image does not appear to have any visual artifacts.",
    "The image appears natural and is free of artifacts.",
    "It is artifact-free",
    "No visible or structural artifacts were found.",
    "Artifacts are not present.",
    "No there are no artifacts",
    "Although it is stylised, there are no artifacts.",
    '{"has_artifact": false, "explanation": "All is well."}',
    '{"artifacts": []}',
    "Yes or No? No",
    "Answer: **No**",
    "The answer is: No",
    "Artifacts present: no",
    "There are none.",
    "The image appears to be free from any visual artifacts.",
    "Closer inspection of the image shows no artifacts.",
]
NEITHER = {
    "": "empty",
    "I'm sorry, but I can't assist with that.": "neither",
    "The hand is odd.": "neither",
    "There may be artifacts": "neither",
    "There are no artifacts in the background": "neither",
    "Answer: no thumb": "neither",
    "The woman's face has no issues. Her hand has six fingers.": "neither",
    "The face in this image has no issues. The hand is odd.": "neither",
    "The image has artifacts not seen in photos.": "negation",
    "Artifacts are present, no doubt.": "negation",
    "I cannot determine whether there are artifacts.": "not decide",
    "No, I am not sure.": "not decide",
    "Possibly. The image has artifacts.": "not decide",
    "Yes and no.": "both",
    "No, there are artifacts in the hand": "both",
    'Yes.\n{"has_artifact": false}': "both",
    "No obvious artifacts, but the hand has six fingers.": "takes something of it back",
    "No. However, the hand has six fingers.": "takes something of it back",
    "It is not free of artifacts": "negation",
    "The hand is not natural and shows artifacts": "negation",
    "<think>There are no artifacts": "thinking",
}


@pytest.mark.parametrize(("text", "expected"), [*((text, True) for text in YES), *((text, False) for text in NO)])
def test_what_is_said_of_artifacts_is_found(text, expected):
    assert read_answers("a", {"detection": text}, SIZE, "pixel").has_artifact is expected
    thought = f"<think>Yes? No! There are no artifacts. {{}}</think>\n{text}<|im_end|>"
    assert read_answers("a", {"detection": thought}, SIZE, "pixel").has_artifact is expected
    assert read_answer("a", text, SIZE, "pixel").has_artifact is expected


@pytest.mark.parametrize(("text", "reason"), NEITHER.items())
def test_what_is_not_said_is_no_no(text, reason):
    prediction = read_answers("a", {"detection": text}, SIZE, "pixel")
    assert prediction.has_artifact is None
    assert len(prediction.failures) == 1 and prediction.failures[0].startswith("detection: ")
    assert reason in prediction.failures[0]


STYLES = {
    "alone": lambda values: "\n".join(f"[{values_text}]" for values_text in map(comma, values)),
    "round brackets": lambda values: "Look at " + " and ".join(f"({comma(value)})" for value in values) + ".",
    "numbered lines": lambda values: "\n".join(f"{i}. {comma(value)}" for i, value in enumerate(values, 1)),
    "json": lambda values: f'{{"has_artifact": true, "boxes": [{", ".join(f"[{comma(v)}]" for v in values)}]}}',
    "fence": lambda values: f"```json\n[\n{QWEN(values)}\n]\n```",
    "python": lambda values: f"[{QWEN(values)}]".replace('"', "'"),
    "without an end": lambda values: f"[{QWEN(values)},",
    "internvl": lambda values: f"<ref>hand</ref><box>[{', '.join(f'[{comma(value)}]' for value in values)}]</box>",
    "qwen tags": lambda values: "\n".join(
        f"<|object_ref_start|>hand<|object_ref_end|><|box_start|>{corners(v)}<|box_end|>" for v in values
    ),
    "both corners": lambda values: "\n".join(
        "Top-left: ({}, {}), Bottom-right: ({}, {})".format(*map(number, value)) for value in values
    ),
    "corners": lambda values: "\n".join(f"from {corners(value).replace('),(', ') to (')}" for value in values),
    "names": lambda values: "\n".join("x1={}, y1={}, x2={}, y2={}".format(*map(number, value)) for value in values),
    "keys": lambda values: ", ".join(
        '{{"x_min": {}, "x_max": {}, "y_min": {}, "y_max": {}}}'.format(*map(number, (v[0], v[2], v[1], v[3])))
        for v in values
    ),
    "swapped": lambda values: "\n".join(f"[{comma((v[2], v[1], v[0], v[3]))}]" for v in values),
    "thought": lambda values: "<think>[1, 2, 3, 4]?</think>" + "\n".join(f"[{comma(value)}]" for value in values),
}


def QWEN(values):
    return ",\n".join(f'\t{{"bbox_2d": [{comma(value)}], "label": "extra (6) fingers"}}' for value in values)


def number(value):
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def comma(values):
    return ", ".join(map(number, values))


def corners(values):
    return "({},{}),({},{})".format(*map(number, values))


@st.composite
def boxes_in_an_image(draw):
    size = draw(st.tuples(st.integers(64, 900), st.integers(64, 900)))
    boxes = []
    for _ in range(draw(st.integers(1, 3))):
        x, y = draw(st.integers(0, size[0] - 40)), draw(st.integers(0, size[1] - 40))
        boxes.append((x, y, draw(st.integers(x + 30, size[0])), draw(st.integers(y + 30, size[1]))))
    return size, boxes


@given(boxes_in_an_image(), st.sampled_from(CONVENTIONS), st.sampled_from(sorted(STYLES)))
def test_boxes_of_every_convention_come_back_in_every_style(image, convention, style):
    size, boxes = image
    resized = qwen2_5_size(size, 3136, 100_000) if convention == "qwen2.5" else None
    values = list(dict.fromkeys(encode_box(box, size, convention, resized) for box in boxes))
    prediction = read_answers("a", {"localization": STYLES[style](values)}, size, convention, resized)
    assert prediction.failures == ()
    expected = [decode_box(value, size, convention, resized) for value in values]
    assert prediction.boxes == tuple(dict.fromkeys(expected))


@given(boxes_in_an_image(), st.sampled_from(CONVENTIONS))
def test_boxes_as_we_write_them_ourselves_come_back(image, convention):
    size, boxes = image
    text = f"The artifacts are at {', '.join(format_box(box, size, convention) for box in boxes)}."
    prediction = read_answers("a", {"localization": text}, size, convention)
    expected = [decode_box(encode_box(box, size, convention), size, convention) for box in boxes]
    assert prediction.boxes == tuple(dict.fromkeys(expected)) and not prediction.failures


@pytest.mark.parametrize("text", ["[]", "```json\n[]\n```", '{"boxes": []}', "<box>[]</box>", "No artifacts.", "No"])
def test_no_place_is_an_empty_answer(text):
    prediction = read_answers("a", {"localization": text}, SIZE, "pixel")
    assert prediction.boxes == () and prediction.failures == ()


@pytest.mark.parametrize(
    ("text", "convention", "reason"),
    [
        ("The left hand.", "pixel", "no box, and it says neither"),
        ("Yes, the left hand.", "pixel", "without a box"),
        ("(120, 50)", "pixel", "no box"),
        ("[null, null, null, null]", "pixel", "no box"),
        ("[12, 34, 500, 78]", "pixel", "out of the image, which is [0, 0, 200, 100]"),
        ("[12, -8, 50, 78]", "pixel", "out of the image"),
        ("[12, 34, 12, 78]", "pixel", "no area"),
        ("[0.1, 0.2, 0.5, 0.6]", "pixel", "fractions"),
        ("[0, 0, 1, 1]", "qwen3", "fractions"),
        ("[12, 34, 56, 78]", "normalized", "out of the image"),
        ("[0.1, 0.0, 0.5, 0.6]", "llava", "out of the image, which is [0, 0.25, 1, 0.75]"),
        ("[1e400, 2, 30, 40]", "pixel", "finite"),
        ("[12, 34, 56]", "pixel", "3 numbers"),
        ("[[10, 10], [50, 10], [50, 50], [10, 50]]", "pixel", "8 numbers"),
        ("left: 5, top: 7", "pixel", "2 numbers"),
        ("[12, 34, 56", "pixel", "cut off"),
        ('[{"box_2d": [12, 34, 56, 78]}]', "qwen3", "y first"),
        ('[{"bbox_2d": [0, 0, 200, 100], "label": "no artifacts"}]', "pixel", "says that there are no artifacts"),
    ],
)
def test_a_box_that_cannot_be_meant_is_a_failure(text, convention, reason):
    prediction = read_answers("a", {"localization": text}, SIZE, convention)
    assert prediction.boxes is None
    assert any(reason in failure for failure in prediction.failures)


@pytest.mark.parametrize(
    "text",
    [
        '{"bbox_xywh": [120, 34, 50, 44]}',
        "[{'bbox_xywh': [[120, 34, 50, 44]]}]",
        '{"boxes_xywh": [[120, 34, 50, 44], [120, 34, 50, 44',
        '[{"x": 120, "y": 34, "width": 50, "height": 44, "label": "hand"}]',
        "It is at **x**: 120, **y**: 34, **w**: 50, **h**: 44.",
        "left=120, top=34, width=50, height=44",
    ],
)
def test_x_y_width_and_height_are_read_by_name(text):
    assert find_boxes(text, SIZE, "pixel").boxes == ((120, 34, 170, 78),)


def test_fractions_of_x_y_width_and_height_are_read_by_name():
    assert find_boxes('{"bbox_xywh": [0.5, 0.1, 0.2, 0.7]}', SIZE, "normalized").boxes == ((100, 10, 140, 80),)


def test_bbox_that_cannot_be_corners_is_a_failure_of_the_answer():
    text = '[{"bbox": [12, 34, 56, 78]}, {"bbox": [120, 34, 50, 44]}]'
    found = find_boxes(text, SIZE, "pixel")
    assert found.boxes == () and found.failures[0].startswith('"bbox" [120, 34, 50, 44] cannot be corners')
    assert find_boxes(text.replace("120", "12"), SIZE, "pixel").boxes == ((12, 34, 56, 78), (12, 34, 50, 44))


def test_good_boxes_stay_beside_bad_ones_and_rounding_is_cut_off():
    prediction = read_answers("a", {"localization": "[12, 34, 201, 78], [1, 2, 300, 4]"}, SIZE, "pixel")
    assert prediction.boxes == ((12, 34, 200, 78),) and len(prediction.failures) == 1
    cut_off = '[{"bbox_2d": [12, 34, 56, 78], "label": "a"}, {"bbox_2d": [1, 2'
    prediction = read_answers("a", {"localization": cut_off}, SIZE, "pixel")
    assert prediction.boxes == ((12, 34, 56, 78),) and prediction.failures == (
        "localization: it is cut off within a box",
    )


def test_a_size_or_a_remark_in_brackets_is_no_box():
    found = find_boxes("The image is (200, 100). Finger (6) is at [12 34 56 78] [1].", SIZE, "pixel")
    assert found.boxes == ((12, 34, 56, 78),) and found.failures == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1. No artifacts.", ()),
        ("[]", ()),
        (
            "1. Awkward facial expression.\n2. Distorted and deformed components.\n"
            "3. Other artifacts: The gown is out of frame, cut.",
            ("Awkward facial expression", "Distorted and deformed components", "Other artifacts"),
        ),
        ("1. Omitted components. 2. Localized blur.", ("Omitted components", "Localized blur")),
        ("Distortion, omission", ("Distorted and deformed components", "Omitted components")),
        ("It has these:\n- **Abnormal texture**: of the wall", ("Abnormal texture",)),
        ('{"classes": ["abnormal texture", "abnormal texture"]}', ("Abnormal texture",)),
        ('```json\n["Illegible letters"]\n```', ("Illegible letters",)),
    ],
)
def test_lists_of_classes(text, expected):
    prediction = read_answers("a", {"classification": text}, SIZE, "pixel")
    assert prediction.classes == expected and prediction.failures == ()


def test_classes_that_do_not_exist_or_contradict_are_failures():
    partly = read_answers("a", {"classification": "1. Strange hands.\n2. Localized blur."}, SIZE, "pixel")
    assert partly.classes == ("Localized blur",)
    assert partly.failures == ("classification: no such class: 'Strange hands'",)
    for text in ("A strange hand", "1. No artifacts.\n2. Localized blur.", "Here they are:"):
        prediction = read_answers("a", {"classification": text}, SIZE, "pixel")
        assert prediction.classes is None and len(prediction.failures) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The hand\nhas six fingers.", "The hand has six fingers."),
        ('{"explanation": "A \\"hand\\" has\\nsix fingers."}', 'A "hand" has six fingers.'),
        ("```json\n{'description': 'Six fingers.'}\n```", "Six fingers."),
        ("<think>hm</think><answer>Six fingers.</answer>", "Six fingers."),
        ('{"label": "six"}', None),
        ('{"explanation": "cut o', None),
        ('{"explanation": " "}', None),
    ],
)
def test_explanations(text, expected):
    prediction = read_answers("a", {"explanation": text}, SIZE, "pixel")
    assert prediction.explanation == expected and bool(prediction.failures) == (expected is None)


def test_one_answer_to_everything():
    text = (
        '{"has_artifact": true, "boxes": [[12, 34, 56, 78]], "explanation": "Six fingers.", "classes": ["omission"]}'
    )
    prediction = read_answer("a", text, SIZE, "pixel")
    assert (prediction.has_artifact, prediction.boxes) == (True, ((12, 34, 56, 78),))
    assert (prediction.explanation, prediction.classes) == ("Six fingers.", ("Omitted components",))
    prose = read_answer("a", "Yes, the hand at [12, 34, 56, 78] has six fingers.", SIZE, "pixel")
    assert (prose.has_artifact, prose.boxes) == (True, ((12, 34, 56, 78),))
    assert read_answer("a", "No.", SIZE, "pixel").boxes == ()
    assert read_answer("a", "Yes.", SIZE, "pixel").boxes is None
    boxes = read_answer("a", '[{"bbox_2d": [12, 34, 56, 78], "label": "six"}]', SIZE, "pixel")
    assert boxes.has_artifact is True and boxes.boxes == ((12, 34, 56, 78),)
    assert read_answer("a", "[]", SIZE, "pixel").has_artifact is False
    for contradiction in ("No. [12, 34, 56, 78]", "Yes. []", '{"has_artifact": true, "boxes": []}'):
        prediction = read_answer("a", contradiction, SIZE, "pixel")
        assert prediction.has_artifact is None and prediction.boxes is None and prediction.failures
    two = 'The hand [12, 34, 56, 78] is fused. An ear is missing. The foot [5, 6, 9, 9] is too long. {"bbox_2d": [1'
    text = "The hand is fused. An ear is missing. The foot is too long."
    assert read_answer("a", two, SIZE, "pixel").explanation == text
    odd = read_answer("a", "The hand is odd.", SIZE, "pixel")
    assert odd.has_artifact is None and odd.explanation == "The hand is odd." and len(odd.failures) == 1


_PIECES = ["yes", "no", "artifacts", "not", "[", "]", "(", ")", "{", "}", '"', "1", "2.5", ", ", ":", "\n", "x1=", " "]
_PIECES += ["<think>", "</think>", "<box>", "```", "bbox_2d", "has_artifact", "classes", "explanation", "\\", "\ud83d"]


@given(
    st.lists(st.sampled_from(_PIECES) | st.text(max_size=5), max_size=40).map("".join), st.sampled_from(CONVENTIONS)
)
def test_no_text_raises_and_none_is_lost_without_a_reason(text, convention):
    tasks = ("detection", "localization", "explanation", "classification")
    asked = read_answers("a", dict.fromkeys(tasks, text), SIZE, convention)
    for value, task in ((asked.has_artifact, "detection"), (asked.boxes, "localization"), (asked.classes, tasks[3])):
        assert value is not None or any(failure.startswith(task) for failure in asked.failures)
    whole = read_answer("a", text, SIZE, convention)
    assert whole.has_artifact is not None or whole.failures
    for box in (*(asked.boxes or ()), *(whole.boxes or ())):
        assert 0 <= box[0] < box[2] <= SIZE[0] and 0 <= box[1] < box[3] <= SIZE[1]


@given(st.text(max_size=60))
def test_a_yes_or_no_needs_its_words(text):
    """Letters at random say nothing: no default answer hides in the parser."""
    words = ("yes", "yea", "yep", "no", "nope", "none", "true", "false", "artifact", "artefact", "flaw", "defect")
    if not any(word in text.lower() for word in (*words, "anomal", "distort", "deform", "irreg", "incon", "glitch")):
        with pytest.raises(AnswerError):
            read_yes_no(text.replace("issue", "").replace("problem", ""))


@pytest.mark.parametrize(
    "piece", ["[", "[1, ", "(1,2),", "no ", "yes or ", "x1=1 ", "\\", '"classes": [', "artifact ", "1 "]
)
def test_endless_answers_are_read_in_time(piece):
    prediction = read_answers(
        "a",
        dict.fromkeys(("detection", "localization", "explanation", "classification"), piece * (9_999 // len(piece))),
        SIZE,
        "pixel",
    )
    assert prediction.id == "a"
    assert "too long" in read_answer("a", piece * 60_000, SIZE, "pixel").failures[0]
