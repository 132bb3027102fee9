"""Models on this machine, and the cache of answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from datasets_script.prompts import describe, explain, verify
from datasets_script.vlm import CachedVLM, LocalVLM, VLMAnswer, VLMUnavailable, default_cache_folder

from .tiny_vlms import tiny_internvl, tiny_llava, tiny_qwen2_5_vl
from .vlm_fixtures import talking  # noqa: F401


RED, BLUE = (Image.new("RGB", (96, 64), color) for color in ((180, 40, 40), (40, 40, 180)))
REQUESTS = [
    verify.request("duplication", "an ear of the cat", (RED, BLUE, RED)),
    describe.request(RED),
    explain.local_request("the cat has an extra ear", (RED, BLUE, BLUE)),
    verify.request("fusion", "a cat and a dog", (BLUE, RED, RED)),
    describe.request(BLUE),
]


@pytest.mark.parametrize("make", [tiny_qwen2_5_vl, tiny_internvl, tiny_llava])
def test_any_image_text_to_text_model_generates_and_nonsense_is_no_answer(make, tmp_path):
    model, processor = make()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    vlm = LocalVLM(str(tmp_path), device="cpu", batch_size=2)
    requests = [replace(request, max_new_tokens=6) for request in REQUESTS[:3]]
    answers = vlm.ask(requests)
    assert all(answer.value is None and answer.raw and answer.error for answer in answers)
    assert vlm.usage.requests == 6 and vlm.usage.repairs == vlm.usage.failures == 3
    assert vlm.usage.completion_tokens > 0 and vlm.usage.prompt_tokens > 3000
    assert [answer.raw for answer in LocalVLM(str(tmp_path), device="cpu").ask(requests)] == [a.raw for a in answers]


def test_a_batch_answers_as_one_by_one(talking):  # noqa: F811
    together, alone = (LocalVLM(str(talking), device="cpu", batch_size=size) for size in (4, 1))
    answers = together.ask(REQUESTS)
    assert answers == [alone.ask([request])[0] for request in REQUESTS]
    assert [answer.value for answer in answers[:2]] == [
        {"has_artifact": True},
        {"description": "A whole thing, as it should be."},
    ]
    assert together.usage.repairs == 0 and together.ask([]) == []


def test_memory_that_runs_out_halves_the_batch(talking, caplog):  # noqa: F811
    class Small(LocalVLM):
        def _generate_batch(self, requests):
            if len(requests) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super()._generate_batch(requests)

    assert all(answer.value for answer in Small(str(talking), device="cpu", batch_size=4).ask(REQUESTS))
    assert "out of memory with 4 questions, going on with 2" in caplog.text


@pytest.mark.parametrize("model", ["no/such-model", "{empty}"])
def test_a_model_that_cannot_be_had_is_told(model, tmp_path):
    with pytest.raises(VLMUnavailable, match="--vlm must be a folder or a Hub repository of an image-text-to-text"):
        LocalVLM(model.format(empty=tmp_path), device="cpu")


def test_quantisation_needs_its_extra(talking):  # noqa: F811
    with pytest.raises(ImportError, match=r"artiagent\[quantization\]"):
        LocalVLM(str(talking), device="cpu", quantization="4bit")


class TestCache:
    def test_what_was_answered_is_not_asked_again(self, talking, tmp_path):  # noqa: F811
        first = CachedVLM(LocalVLM(str(talking), device="cpu"), tmp_path)
        answers = first.ask(REQUESTS)
        assert first.usage.requests == 5 and first.usage.cache_hits == 0
        second = CachedVLM(LocalVLM(str(talking), device="cpu"), tmp_path)
        assert second.ask(REQUESTS) == answers
        assert second.usage.requests == 0 and second.usage.cache_hits == 5
        assert second.model == str(talking) and second.identity() == first.identity()

    def test_the_same_question_twice_is_asked_once(self, talking, tmp_path):  # noqa: F811
        vlm = CachedVLM(LocalVLM(str(talking), device="cpu"), tmp_path)
        answers = vlm.ask([REQUESTS[0], REQUESTS[1], REQUESTS[0]])
        assert answers[0] == answers[2] and vlm.usage.requests == 2

    @pytest.mark.parametrize(
        "change",
        [{"version": "2"}, {"prompt": "Task: describe_clean.\nElse."}, {"images": (BLUE,)}, {"max_new_tokens": 7}],
    )
    def test_another_question_is_another_entry(self, talking, tmp_path, change):  # noqa: F811
        vlm = CachedVLM(LocalVLM(str(talking), device="cpu"), tmp_path)
        vlm.ask([REQUESTS[1]])
        vlm.ask([replace(REQUESTS[1], **change)])
        assert vlm.usage.cache_hits == 0 and len(list(tmp_path.rglob("*.json"))) == 2

    def test_another_revision_is_another_entry(self, talking, tmp_path):  # noqa: F811
        vlm = LocalVLM(str(talking), device="cpu")
        CachedVLM(vlm, tmp_path).ask(REQUESTS[:1])
        vlm.revision = "another"
        CachedVLM(vlm, tmp_path).ask(REQUESTS[:1])
        assert vlm.usage.requests == 2

    def test_answers_that_cannot_be_used_are_not_kept(self, talking, tmp_path):  # noqa: F811
        impossible = replace(REQUESTS[0], schema={"type": "object", "required": ["x"]})
        vlm = CachedVLM(LocalVLM(str(talking), device="cpu"), tmp_path)
        assert vlm.ask([impossible])[0].value is None and not list(tmp_path.rglob("*.json"))

    @pytest.mark.parametrize("content", ["", '{"value": {"has_', "[]", '{"other": 1}'])
    def test_a_spoilt_entry_is_asked_for_again(self, talking, tmp_path, content):  # noqa: F811
        vlm = CachedVLM(LocalVLM(str(talking), device="cpu"), tmp_path)
        (answer,) = vlm.ask(REQUESTS[:1])
        (entry,) = tmp_path.rglob("*.json")
        entry.write_text(content)
        assert vlm.ask(REQUESTS[:1]) == [answer] and vlm.usage.requests == 2
        assert VLMAnswer(**json.loads(entry.read_text())) == answer

    def test_the_folder_follows_the_environment(self, monkeypatch):
        monkeypatch.setenv("ARTIAGENT_CACHE", "/some/where")
        assert default_cache_folder() == Path("/some/where/vlm")
        monkeypatch.delenv("ARTIAGENT_CACHE")
        assert default_cache_folder() == Path.home() / ".cache" / "artiagent" / "vlm"
