"""Models on this machine, and the cache of answers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from datasets_script.prompts import describe, explain, verify
from datasets_script.vlm import CachedVLM, LocalVLM, VLMAnswer, VLMUnavailable, default_cache_folder

from .tiny_vlms import tiny_internvl, tiny_llava, tiny_qwen2_5_vl


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


def test_a_batch_answers_as_one_by_one(talking):
    together, alone = (LocalVLM(str(talking), device="cpu", batch_size=size) for size in (4, 1))
    answers = together.ask(REQUESTS)
    assert answers == [alone.ask([request])[0] for request in REQUESTS]
    assert [answer.value for answer in answers[:2]] == [
        {"has_artifact": True},
        {"description": "A whole thing, as it should be."},
    ]
    assert together.usage.repairs == 0 and together.ask([]) == []


def test_memory_that_runs_out_halves_the_batch(talking, caplog):
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


def test_the_revision_of_a_hub_model_is_its_commit(talking):
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = Path(huggingface_hub.constants.HF_HUB_CACHE) / "models--tiny--talking"
    shutil.copytree(talking, cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    vlm = LocalVLM("tiny/talking", device="cpu")
    assert vlm.revision == commit and vlm.ask(REQUESTS[:1])[0].value


def test_weights_that_are_cut_off_are_told(talking, tmp_path):
    shutil.copytree(talking, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(VLMUnavailable, match="--vlm must be a folder"):
        LocalVLM(str(tmp_path / "model"), device="cpu")


@pytest.mark.parametrize("fault", ["cut", "missing"])
def test_spoilt_weights_are_told(fault, tmp_path):
    model, processor = tiny_llava()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        weights = load_file(path)
        weights.pop(next(name for name in weights if "q_proj" in name))
        save_file(weights, path, {"format": "pt"})
    with pytest.raises(VLMUnavailable):
        LocalVLM(str(tmp_path), device="cpu")


def test_an_answer_is_no_longer_than_it_may_be_in_any_batch(tmp_path):
    model, processor = tiny_qwen2_5_vl()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    requests = [replace(REQUESTS[0], max_new_tokens=length) for length in (4, 9)]
    together, alone = (LocalVLM(str(tmp_path), device="cpu", batch_size=size) for size in (2, 1))
    assert together.ask(requests) == alone.ask(requests)
    assert together.usage.completion_tokens == alone.usage.completion_tokens


def test_quantisation_needs_its_extra(talking):
    with pytest.raises(ImportError, match=r"artiagent\[quantization\]"):
        LocalVLM(str(talking), device="cpu", quantization="4bit")


class TestCache:
    def test_what_was_answered_is_not_asked_again(self, talking, tmp_path):
        first = CachedVLM(LocalVLM(str(talking), device="cpu"), tmp_path)
        answers = first.ask(REQUESTS)
        assert first.usage.requests == 5 and first.usage.cache_hits == 0
        second = CachedVLM(LocalVLM(str(talking), device="cpu"), tmp_path)
        assert second.ask(REQUESTS) == answers
        assert second.usage.requests == 0 and second.usage.cache_hits == 5
        assert second.model == str(talking) and second.identity() == first.identity()

    def test_the_same_question_twice_is_asked_once(self, talking, tmp_path):
        vlm = CachedVLM(LocalVLM(str(talking), device="cpu"), tmp_path)
        answers = vlm.ask([REQUESTS[0], REQUESTS[1], REQUESTS[0]])
        assert answers[0] == answers[2] and vlm.usage.requests == 2

    @pytest.mark.parametrize(
        "change",
        [{"version": "2"}, {"prompt": "Task: describe_clean.\nElse."}, {"images": (BLUE,)}, {"max_new_tokens": 7}],
    )
    def test_another_question_is_another_entry(self, talking, tmp_path, change):
        vlm = CachedVLM(LocalVLM(str(talking), device="cpu"), tmp_path)
        vlm.ask([REQUESTS[1]])
        vlm.ask([replace(REQUESTS[1], **change)])
        assert vlm.usage.cache_hits == 0 and len(list(tmp_path.rglob("*.json"))) == 2

    def test_another_revision_is_another_entry(self, talking, tmp_path):
        vlm = LocalVLM(str(talking), device="cpu")
        CachedVLM(vlm, tmp_path).ask(REQUESTS[:1])
        vlm.revision = "another"
        CachedVLM(vlm, tmp_path).ask(REQUESTS[:1])
        assert vlm.usage.requests == 2

    def test_answers_that_cannot_be_used_are_not_kept(self, talking, tmp_path):
        impossible = replace(REQUESTS[0], schema={"type": "object", "required": ["x"]})
        vlm = CachedVLM(LocalVLM(str(talking), device="cpu"), tmp_path)
        assert vlm.ask([impossible])[0].value is None and not list(tmp_path.rglob("*.json"))

    @pytest.mark.parametrize(
        "content",
        ["", '{"value": {"has_', "[]", '{"other": 1}', '{"value": null, "raw": ""}', '{"value": {}, "raw": ""}'],
    )
    def test_a_spoilt_entry_is_asked_for_again(self, talking, tmp_path, content):
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
