"""Models on this machine, and the cache of answers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from datasets_script.agents.prompts import describe, explain, verify
from datasets_script.utils.files import fingerprint
from datasets_script.vlm import CachedVLM, LocalVLM, VLMAnswer, VLMUnavailable, default_cache_folder
from datasets_script.vlm.local import recorded_coordinates, training_record

from ...helpers.tiny_vlms import tiny_internvl, tiny_llava, tiny_qwen2_5_vl


RED, BLUE = (Image.new("RGB", (96, 64), color) for color in ((180, 40, 40), (40, 40, 180)))
REQUESTS = [
    verify.request("duplication", "an ear of the cat", (RED, BLUE, RED)),
    describe.request(RED),
    explain.local_request("the cat has an extra ear", (RED, BLUE, BLUE)),
    verify.request("fusion", "a cat and a dog", (BLUE, RED, RED)),
    describe.request(BLUE),
]


def test_a_record_that_cannot_be_asked_for_is_told(monkeypatch, caplog):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert recorded_coordinates(training_record("someone/never-downloaded", None)) is None
    assert (
        "someone/never-downloaded: its training record, which may tell how it writes boxes, cannot be read offline"
        in caplog.text
    )


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


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory"), MemoryError()]
)
def test_memory_that_runs_out_halves_the_batch(talking, caplog, error):
    class Small(LocalVLM):
        def _generate_batch(self, requests):
            if len(requests) > 1:
                raise error
            return super()._generate_batch(requests)

    assert all(answer.value for answer in Small(str(talking), device="cpu", batch_size=4).ask(REQUESTS))
    assert "out of memory with 4 questions, going on with 2" in caplog.text


@pytest.mark.parametrize("model", ["no/such-model", "{empty}"])
def test_a_model_that_cannot_be_had_is_told(model, tmp_path):
    with pytest.raises(VLMUnavailable, match="model must be a folder or a Hub repository of an image-text-to-text"):
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
    with pytest.raises(VLMUnavailable, match="model must be a folder"):
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


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """An adapter with its processor, as TRL saves it, and beside it the model that it was trained on."""
    folder = tmp_path_factory.mktemp("peft")
    model, processor = tiny_qwen2_5_vl()
    model.save_pretrained(folder / "base")
    base = AutoModelForImageTextToText.from_pretrained(folder / "base")
    torch.manual_seed(0)
    # A head of its own, and factors that are not zero, as training leaves them.
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], modules_to_save=["lm_head"], init_lora_weights=False)
    tuned = get_peft_model(base, lora)
    tuned.save_pretrained(folder / "adapter")
    processor.save_pretrained(folder / "adapter")
    return folder / "adapter", tuned


@pytest.fixture
def spoilt(adapter, tmp_path):
    """Copies of both, and the adapter of the copied model."""
    shutil.copytree(adapter[0].parent, tmp_path / "peft")
    folder = tmp_path / "peft" / "adapter"
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = str(tmp_path / "peft" / "base")
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


class TestAdapter:
    def test_it_answers_as_the_model_it_was_trained_as(self, adapter):
        folder, tuned = adapter
        vlm = LocalVLM(str(folder), device="cpu")
        request = replace(REQUESTS[1], max_new_tokens=12)
        (answer,) = vlm.ask([request])
        vlm.network = tuned.eval()
        assert [answer] == vlm.ask([request])
        vlm.network = AutoModelForImageTextToText.from_pretrained(folder.with_name("base")).eval()
        assert [answer] != vlm.ask([request])

    def test_its_record_names_both(self, adapter):
        identity = LocalVLM(str(adapter[0]), device="cpu").identity()
        assert identity["model"] == str(adapter[0]) and identity["base_model"] == str(adapter[0].with_name("base"))
        assert identity["revision"] != identity["base_revision"]
        assert identity["revision"].startswith("sha256:") and identity["base_revision"].startswith("sha256:")

    def test_one_of_the_hub_keeps_its_revision_from_its_base(self, adapter):
        commits = {"base": "1" * 40, "adapter": "2" * 40}
        for name, commit in commits.items():
            repository = Path(huggingface_hub.constants.HF_HUB_CACHE) / f"models--tiny--{name}"
            shutil.copytree(adapter[0].with_name(name), repository / "snapshots" / commit)
            (repository / "refs").mkdir()
            (repository / "refs" / ("v1" if name == "adapter" else "main")).write_text(commit)
        config = repository / "snapshots" / commits["adapter"] / "adapter_config.json"
        settings = json.loads(config.read_text()) | {"base_model_name_or_path": "tiny/base"}
        config.write_text(json.dumps(settings))
        identity = LocalVLM("tiny/adapter", revision="v1", device="cpu").identity()
        assert identity["revision"] == commits["adapter"] and identity["base_revision"] == commits["base"]
        assert identity["base_model"] == "tiny/base"

    @pytest.mark.parametrize("name", ["adapter/adapter_model", "base/model"])
    def test_what_either_lacks_is_told(self, spoilt, name):
        path = spoilt.parent / f"{name}.safetensors"
        weights = load_file(path)
        weights.pop(lacking := next(key for key in weights if "q_proj" in key and "bias" not in key))
        save_file(weights, path, {"format": "pt"})
        with pytest.raises(VLMUnavailable, match=f"lacks weights, .*{lacking.split('.')[-2]}"):
            LocalVLM(str(spoilt), device="cpu")

    def test_a_base_that_is_gone_is_told_by_name(self, spoilt):
        shutil.rmtree(base := spoilt.with_name("base"))
        with pytest.raises(VLMUnavailable, match=f"got '{spoilt}': .*{base}"):
            LocalVLM(str(spoilt), device="cpu")

    def test_pickled_weights_are_not_loaded(self, spoilt):
        path = spoilt / "adapter_model.safetensors"
        torch.save(load_file(path), path.with_suffix(".bin"))
        path.unlink()
        with pytest.raises(VLMUnavailable, match="there is no adapter_model.safetensors"):
            LocalVLM(str(spoilt), device="cpu")


@pytest.fixture
def trained(talking, tmp_path):
    """A copy of the model, with the record of its training."""
    folder = Path(shutil.copytree(talking, tmp_path / "trained"))
    (folder / "training.json").write_text(json.dumps({"format": 1, "data": {"coordinates": "qwen3"}}))
    return folder


class TestConvention:
    def test_boxes_are_asked_for_as_the_training_wrote_them(self, talking, trained, tmp_path):
        assert LocalVLM(str(talking), device="cpu").coordinates == "llava"
        assert CachedVLM(LocalVLM(str(trained), device="cpu"), tmp_path).coordinates == "qwen3"

    def test_the_record_is_found_on_the_hub_too(self, trained):
        commit = "89abcdef0123456789abcdef0123456789abcdef"
        repository = Path(huggingface_hub.constants.HF_HUB_CACHE) / "models--tiny--trained"
        shutil.copytree(trained, repository / "snapshots" / commit)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
        assert LocalVLM("tiny/trained", device="cpu").coordinates == "qwen3"

    @pytest.mark.parametrize("record", ["[]", '{"data": []}', '{"data": {"coordinates": "polar"}}'])
    def test_files_of_other_programs_say_nothing(self, trained, record):
        (trained / "training.json").write_text(record)
        assert LocalVLM(str(trained), device="cpu").coordinates == "llava"


class TestFingerprint:
    @pytest.mark.parametrize("size", [10_000, 9_000_000])
    def test_other_weights_of_the_same_size_are_another_model(self, size, tmp_path):
        path = tmp_path / "model.safetensors"
        content = np.random.default_rng(0).bytes(size)
        path.write_bytes(content)
        first = fingerprint(tmp_path)
        assert fingerprint(tmp_path) == first
        # A tensor of 100 KB in the middle has been trained, the last byte, or all after the header.
        for begin, end in ((size // 2, size // 2 + 100_000), (1000, size)):
            changed = bytearray(content)
            changed[begin:end] = bytes(len(changed[begin:end]))
            path.write_bytes(changed)
            assert fingerprint(tmp_path) != first

    def test_a_model_trained_anew_in_its_folder_is_asked_again(self, trained, tmp_path):
        for times in (1, 2):
            vlm = CachedVLM(LocalVLM(str(trained), device="cpu"), tmp_path / "cache")
            vlm.ask(REQUESTS[:1])
            assert vlm.usage.requests == 1, f"at time {times}"
            weights = load_file(trained / "model.safetensors")
            name = next(name for name in weights if "q_proj" in name and "language" in name)
            save_file(weights | {name: weights[name] * 1.0001}, trained / "model.safetensors", {"format": "pt"})


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
