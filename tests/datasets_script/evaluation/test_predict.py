"""Models that are really asked about a benchmark: here, behind a server, and after an interruption."""

from __future__ import annotations

import io
import json

import pytest
from PIL import Image

from datasets_script.cli.main import build_parser
from datasets_script.detection.questions import TASKS, question, request
from datasets_script.evaluation.predict import PredictionSettings, predict
from datasets_script.evaluation.prediction_files import read_predictions
from datasets_script.schema.image import BenchmarkImage
from datasets_script.utils.errors import UserError
from datasets_script.vlm import VLM, CachedVLM, LocalVLM, VLMAnswer, VLMUnavailable
from datasets_script.vlm.conventions import BoxFormat

from ...helpers.fault_proxy import fault_proxy
from ...helpers.made_benchmarks import write_benchmark
from ...helpers.tiny_vlms import serving, talking_vlm, tiny_qwen2_5_vl


BOXES = '```json\n[{"bbox_2d": [0.25, 0.5, 0.5, 1.0], "label": "six fingers"}]\n```'
ANSWERS = {"detection": "Yes.", "localization": BOXES, "explanation": "Six fingers.", "classification": "1. Omission."}
SIZE = (40, 20)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    return talking_vlm(tmp_path_factory.mktemp("vlm") / "asked", ANSWERS)


@pytest.fixture(scope="module")
def images() -> list[BenchmarkImage]:
    made = []
    for number in range(5):
        buffer = io.BytesIO()
        Image.new("RGB", SIZE, (50 * number, 80, 80)).save(buffer, format="PNG")
        made.append(BenchmarkImage(f"{number}.png", buffer.getvalue(), SIZE, has_artifact=bool(number % 2)))
    return made


@pytest.fixture(scope="module")
def folder(images, tmp_path_factory):
    return write_benchmark(tmp_path_factory.mktemp("benchmark") / "mine", images)


class Scripted(VLM):
    """Answers by script, counts what it is asked, and is stopped once `patience` groups were asked."""

    def __init__(self, patience: int = 1000, error: str = "") -> None:
        super().__init__("scripted")
        self.asked: list = []
        self.patience, self.error = patience, error

    def ask(self, requests):
        if not self.patience:
            raise KeyboardInterrupt
        self.patience -= 1
        self.asked += requests
        if self.error:
            return [VLMAnswer(None, "", self.error) for _ in requests]
        return [VLMAnswer(None, ANSWERS[request.task]) for request in requests]


def settings(**changes) -> PredictionSettings:
    return PredictionSettings(
        **{"benchmark": "mine", "split": None, "tasks": TASKS[:3], "form": BoxFormat("normalized"), **changes}
    )


def run(*arguments: object) -> int:
    parser = build_parser()
    args = parser.parse_args(["predict", *map(str, arguments)])
    return args.run(args)


def test_a_local_model_is_asked_and_its_answers_are_read(asked, folder, tmp_path, capsys):
    out = tmp_path / "predictions.jsonl"
    options = ("--benchmark", folder, "--device", "cpu", "--cache", tmp_path / "cache", "--coordinates", "normalized")
    assert run(asked, *options, "--out", out, "--limit", 2) == 0
    first = out.read_bytes()
    assert run(asked, *options, "--out", out, "--batch-size", 2) == 0
    assert out.read_bytes().startswith(first)
    assert "5 images in" in (told := capsys.readouterr().out) and "3 asked about now, 0 of them" in told
    header, *lines = map(json.loads, out.read_text().splitlines())
    assert lines == [{"id": f"{i}.png", "answers": {task: ANSWERS[task] for task in TASKS[:3]}} for i in range(5)]
    recorded = header["artiagent"]
    assert recorded["model"]["model"] == str(asked) and recorded["model"]["revision"].startswith("sha256:")
    assert recorded["benchmark"] == "mine" and recorded["coordinates"] == "normalized"
    assert recorded["questions"]["detection"]["text"] == question("detection", "normalized")
    file = read_predictions(out, dict.fromkeys((line["id"] for line in lines), SIZE))
    prediction = file.predictions["3.png"]
    assert prediction.has_artifact is True and prediction.boxes == ((10, 10, 20, 20),)
    assert prediction.explanation == "Six fingers." and prediction.failures == () and file.missing == ()
    with pytest.raises(UserError, match=r"other settings \(coordinates, questions\)"):
        run(asked, *options[:-1], "llava", "--out", out)
    # The family is known by the architecture, and free text comes from the cache as it was.
    assert run(asked, *options[:-2], "--out", tmp_path / "more.jsonl", "--tasks", "classification, detection") == 0
    header, *lines = map(json.loads, (tmp_path / "more.jsonl").read_text().splitlines())
    assert header["artiagent"]["coordinates"] == "llava" and [*lines[0]["answers"]] == ["detection", "classification"]


def test_a_model_behind_a_server_is_asked_for_free_text(asked, online, folder, tmp_path):
    with serving(asked) as url, fault_proxy(url) as proxy:
        out = tmp_path / "p.jsonl"
        options = ("--benchmark", folder, "--endpoint", proxy.base_url, "--cache", tmp_path / "cache", "--limit", 2)
        assert run(asked, *options, "--out", out, "--coordinates", "qwen2.5", "--max-pixels", 10_000) == 0
        sent = len(proxy.requests)
    header, *lines = map(json.loads, out.read_text().splitlines())
    assert lines == [{"id": f"{i}.png", "answers": {task: ANSWERS[task] for task in TASKS[:3]}} for i in range(2)]
    assert header["artiagent"]["min_pixels"] == 3136 and header["artiagent"]["max_pixels"] == 10_000
    assert sent == 6 and not any(b"response_format" in str(request).encode() for request in proxy.requests)


@pytest.mark.parametrize("groups", range(4))
def test_an_interrupted_run_goes_on_and_asks_nothing_twice(images, tmp_path, groups):
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    assert [p.id for p in predict(Scripted(), images, settings(), whole, 2)] == [image.id for image in images]
    stopped, resumed = Scripted(patience=groups), Scripted()
    try:
        list(predict(stopped, images, settings(), broken, 2))
    except KeyboardInterrupt:
        assert groups < 3
    with broken.open("ab") as file:
        file.write(b'{"id": "4.png", "ans')
    list(predict(resumed, images, settings(), broken, 2))
    assert broken.read_bytes() == whole.read_bytes()
    assert len(stopped.asked) + len(resumed.asked) == 15


def test_a_question_without_an_answer_is_on_record_as_a_failure(images, tmp_path):
    out = tmp_path / "p.jsonl"
    predictions = list(predict(Scripted(error="refused"), images[:1], settings(tasks=TASKS), out))
    assert predictions[0].failures == tuple(f"{task}: there is no answer: refused" for task in TASKS)
    assert read_predictions(out, {"0.png": SIZE}).predictions["0.png"] == predictions[0]


def test_a_question_without_an_answer_is_asked_again_on_resume(images, tmp_path):
    out, whole = tmp_path / "p.jsonl", tmp_path / "whole.jsonl"
    list(predict(Scripted(), images[:1], settings(), out))
    list(predict(Scripted(error="refused"), images[:2], settings(), out))
    resumed = Scripted()
    assert [p.id for p in predict(resumed, images[:3], settings(), out)] == ["1.png", "2.png"]
    list(predict(Scripted(), images[:3], settings(), whole))
    assert out.read_bytes() == whole.read_bytes() and len(resumed.asked) == 6


def test_free_text_is_remembered_as_it_is_and_errors_are_not(images, tmp_path):
    asked = request("detection", "pixel", Image.new("RGB", SIZE))
    vlm = Scripted(error="refused")
    assert CachedVLM(vlm, tmp_path).ask([asked]) == [VLMAnswer(None, "", "refused")]
    vlm.error = ""
    for _ in range(2):
        assert CachedVLM(vlm, tmp_path).ask([asked]) == [VLMAnswer(None, "Yes.")]
    assert len(vlm.asked) == 2 and vlm.usage.cache_hits == 1


def test_the_size_that_qwen_sees_comes_from_its_own_processor(tmp_path):
    model, processor = tiny_qwen2_5_vl()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    local = LocalVLM(str(tmp_path), device="cpu")
    vlm = CachedVLM(local, tmp_path / "cache")
    assert vlm.coordinates == "qwen2.5"
    form = vlm.box_format()
    assert (form.min_pixels, form.max_pixels) == (28 * 28, 56 * 56)
    for size in ((200, 100), (30, 30), (57, 113)):
        seen = local.processor.image_processor(Image.new("RGB", size), return_tensors="pt")["image_grid_thw"][0]
        assert form.resized(size) == (int(seen[2]) * 14, int(seen[1]) * 14)
    assert vlm.box_format("qwen2.5", 784, 1568).max_pixels == 1568


@pytest.mark.parametrize(
    ("name", "convention"),
    [
        ("Qwen/Qwen2.5-VL-7B-Instruct", "qwen2.5"),
        ("Qwen/Qwen3-VL-8B-Instruct", "qwen3"),
        ("OpenGVLab/InternVL3_5-8B-HF", "internvl"),
        ("llava-hf/llava-1.5-7b-hf", "llava"),
        ("gpt-4o", "normalized"),
    ],
)
def test_a_family_is_known_by_its_name(name, convention):
    vlm = Scripted()
    vlm.model = name
    assert vlm.coordinates == convention


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--limit", 0), "--limit must be at least 1, got 0"),
        (("--batch-size", 0), "--batch-size must be at least 1, got 0"),
        (("--tasks", "detection,colour"), "--tasks must be among .*, got 'colour'"),
        (("--endpoint", "localhost:8000/v1"), "the endpoint must begin with http:// or https://, got 'localhost"),
        (("--split", "train"), "`split` must be one of test for .*, got 'train'"),
    ],
)
def test_mistakes_are_told_before_a_model_is_loaded(folder, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        run(tmp_path, "--benchmark", folder, "--out", tmp_path / "p.jsonl", *options)
    with pytest.raises(UserError, match="--out must be a file"):
        run(tmp_path, "--benchmark", folder, "--out", tmp_path)
    with pytest.raises(VLMUnavailable):
        run(tmp_path, "--benchmark", folder, "--out", tmp_path / "p.jsonl")
