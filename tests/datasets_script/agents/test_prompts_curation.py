"""Wording, schemas and answers of the questions that curation asks."""

from __future__ import annotations

import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from datasets_script.agents.prompts import describe, explain, verify
from datasets_script.agents.prompts.explain import GLOBAL_SCHEMA, LOCAL_SCHEMA, LocalExplanation
from datasets_script.vlm.base import VLMRequest


SCENE, BEFORE, AFTER = (Image.new("RGB", (200, 100), color) for color in ("grey", "white", "black"))
TRIPLET = (SCENE, BEFORE, AFTER)
REQUESTS = {
    "verify_duplication": verify.request("duplication", "the ear of the cat", TRIPLET),
    "verify_omission": verify.request("omission", "the {ear} of the cat", TRIPLET),
    "verify_fusion": verify.request("fusion", "the cat and the dog", TRIPLET),
    "explain_local": explain.local_request("the cat has an extra {ear}", TRIPLET),
    "explain_global": explain.global_request(AFTER, [((20, 10, 100, 100), "The cat has two {left} ears.")]),
    "describe_clean": describe.request(BEFORE),
}


@pytest.mark.parametrize(("task", "request_"), REQUESTS.items())
def test_every_prompt_begins_with_its_task_and_shows_the_json_its_schema_wants(task: str, request_: VLMRequest):
    assert request_.task == task and request_.prompt.splitlines()[0] == f"Task: {task}."
    assert request_.schema is not None
    Draft202012Validator.check_schema(request_.schema)
    shown = re.findall(r'\{("[^{}]*)\}', request_.prompt.splitlines()[-1])
    assert shown
    for example in shown:
        assert set(re.findall(r'"(\w+)":', example)) == set(request_.schema["required"])
    assert "{{" not in request_.prompt


@pytest.mark.parametrize(("task", "request_"), REQUESTS.items())
def test_no_prompt_names_a_tool_of_ours(task: str, request_: VLMRequest):
    instructions = request_.prompt.split("\n", 1)[1]
    assert not re.search(r"\b(inject\w*|inpaint\w*|diffusion|shuffle|jitter|FLUX|mask\w*)\b", instructions)


@pytest.mark.parametrize(
    ("schema", "value", "valid"),
    [
        (verify.SCHEMA, {"has_artifact": True}, True),
        (verify.SCHEMA, {"has_artifact": "yes"}, False),
        (verify.SCHEMA, {"has_artifact": True, "reason": "-"}, False),
        (verify.SCHEMA, {}, False),
        (LOCAL_SCHEMA, {"explanation": "Two ears grow from one place.", "label": "extra ear"}, True),
        (LOCAL_SCHEMA, {"explanation": "Two ears grow from one place."}, False),
        (LOCAL_SCHEMA, {"explanation": "Two ears grow from one place.", "label": "an ear " * 20}, False),
        (GLOBAL_SCHEMA, {"explanation": "The cat has an ear too many."}, True),
        (GLOBAL_SCHEMA, {"explanation": ""}, False),
        (describe.SCHEMA, {"description": "A whole cat."}, True),
        (describe.SCHEMA, {"description": None}, False),
    ],
)
def test_schemas(schema: dict[str, Any], value: dict[str, Any], valid: bool):
    assert Draft202012Validator(schema).is_valid(value) is valid


class TestVerify:
    @pytest.mark.parametrize("kind", ["duplication", "omission", "fusion"])
    def test_the_three_images_come_in_the_order_of_the_prompt(self, kind):
        request = verify.request(kind, "the ear of the cat", TRIPLET)
        assert request.images == TRIPLET
        assert "the ear of the cat" in request.prompt and "Be strict" in request.prompt

    def test_the_criteria_are_those_of_the_type(self):
        assert "contour of its own" in REQUESTS["verify_duplication"].prompt
        assert "texture, brightness or colour" in REQUESTS["verify_duplication"].prompt
        assert "pose" in REQUESTS["verify_omission"].prompt
        assert "bleeds" in REQUESTS["verify_fusion"].prompt

    def test_names_are_taken_as_they_are(self):
        assert "take away: the {ear} of the cat." in REQUESTS["verify_omission"].prompt

    def test_a_distortion_is_refused(self):
        with pytest.raises(ValueError, match="'distortion'"):
            verify.request("distortion", "the ear of the cat", TRIPLET)

    def test_read(self):
        assert verify.read({"has_artifact": True}) is True
        assert verify.read({"has_artifact": False}) is False


class TestExplain:
    def test_the_artifact_is_named(self):
        request = REQUESTS["explain_local"]
        assert "with a flaw: the cat has an extra {ear}." in request.prompt and request.images == TRIPLET

    def test_boxes_are_told_as_shares_of_the_image(self):
        request = REQUESTS["explain_global"]
        assert request.images == (AFTER,)
        assert "- 10% to 50% from the left, 10% to 100% from the top: The cat has two {left} ears." in request.prompt

    def test_texts_are_read_on_one_line(self):
        texts = explain.read_local({"explanation": " Two ears\n grow there. ", "label": "extra ear "})
        assert texts == LocalExplanation("Two ears grow there.", "extra ear")
        assert explain.read_global({"explanation": "Two ears.\nOne tail. "}) == "Two ears. One tail."

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            (" \n", "must not be blank"),
            ("In the third image the cat has two tails.", "'third image'"),
            ("Unlike in the original picture, there is no tail.", "'original picture'"),
            ("The tail of image 3 is gone.", "'image 3'"),
            ("The tail at [12, 40, 60, 80] is gone.", "coordinates"),
            ("The tail, 40% from the left, is gone.", "coordinates"),
            ("The tail is cut 20 pixels too short.", "coordinates"),
        ],
    )
    def test_what_only_who_saw_the_question_could_understand_is_refused(self, text, reason):
        with pytest.raises(ValueError, match=f"`explanation`.*{reason}"):
            explain.read_global({"explanation": text})
        with pytest.raises(ValueError, match=f"`explanation`.*{reason}"):
            explain.read_local({"explanation": text, "label": "missing tail"})
        with pytest.raises(ValueError, match=f"`label`.*{reason}"):
            explain.read_local({"explanation": "The cat has no tail.", "label": text})

    @pytest.mark.parametrize(
        "text",
        [
            "The cat has 3 ears, 2 of them on the left.",
            "The photograph shows a hand with six fingers; a hand has five.",
            "The first finger is doubled in this image.",
        ],
    )
    def test_numbers_of_things_are_plain_language(self, text):
        assert explain.read_global({"explanation": text}) == text


class TestDescribe:
    def test_read(self):
        assert describe.read({"description": "A cat.\nAll whole. "}) == "A cat. All whole."
        with pytest.raises(ValueError, match="`description` must not be blank, got"):
            describe.read({"description": " "})
