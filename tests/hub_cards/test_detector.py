"""The push of a pixel detector: its files, its card, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from datasets_script.utils.errors import UserError
from hub_cards.kinds.detector import detector_payload
from hub_cards.payload import missing_mark

from ..helpers.tiny_detectors import red_detector, square
from .test_push import evaluation_report, training_record


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("detector") / "red"
    red_detector().save_pretrained(folder)
    record = training_record(script="training/train_pixel_detector.py")
    del record["data"]["coordinates"]
    record["data"]["sources"] = [{"kind": "pairs", "source": "demo", "skipped": {}}, {"kind": "photos", "units": 7}]
    (folder / "training.json").write_text(json.dumps(record))
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "report.json").write_text(json.dumps(evaluation_report("/home/alice/artibench")))
    (folder / "examples").mkdir()
    square((8, 8, 24, 24)).save(folder / "examples" / "best.png")
    (folder / "training_args.bin").write_bytes(b"a pickle")
    (folder / "README.md").write_text("---\ntags:\n- generated_from_trainer\n---\n# Model\n")
    return folder


@pytest.fixture
def copy(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def test_a_detector_is_its_weights_and_records(trained):
    payload = detector_payload(trained, "tester/red", "apache-2.0")
    assert missing_mark(payload.kind, payload.repo_id, [file.path for file in payload.files]) is None
    assert [file.path for file in payload.files] == [
        "README.md",
        "config.json",
        "evaluation/report.json",
        "examples/best.png",
        "model.safetensors",
        "pixel_detector.json",
        "training.json",
    ]
    assert payload.left_out == ("training_args.bin",)
    sent = {file.path: file.read() for file in payload.files}
    assert b"/home/alice" not in sent["evaluation/report.json"]


def test_its_card_says_what_is_on_record(trained):
    card = ModelCard(detector_payload(trained, "tester/red", "apache-2.0").card)
    metadata = card.data.to_dict()
    assert metadata["pipeline_tag"] == "image-segmentation" and metadata["library_name"] == "transformers"
    assert metadata["base_model"] == "someone/base-vlm" and "pixel-detector" in metadata["tags"]
    assert metadata["license"] == "apache-2.0" and metadata["model-index"][0]["name"] == "red"
    for text in (
        "`SegformerForSemanticSegmentation`",
        "artiagent detect image.png --model tester/red",
        "| preprocessing, length | 64 |",
        "| thresholds, high | 0.5 |",
        "| source 1, kind | pairs |",
        "| source 1, skipped | none |",
        "| source 2, units | 7 |",
        "![best](examples/best.png)",
        "training/train_pixel_detector.py",
        "NVIDIA Source Code License (non-commercial)",
    ):
        assert text in card.text, text
    python = card.text.split("```python\n")[1].split("```")[0]
    compile(python, "card", "exec")


def test_a_licence_is_needed_and_a_card_by_hand_is_kept(copy):
    with pytest.raises(UserError, match="--license must be given"):
        detector_payload(copy, "tester/red", None)
    (copy / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    assert detector_payload(copy, "tester/red", None).card == "---\nlicense: mit\n---\n# Mine\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pixel_detector.json", "must be a pixel detector with pixel_detector.json, got '.*' without it"),
        ("config.json", "must be a pixel detector with config.json"),
        ("model.safetensors", "must hold the model's weights as safetensors, got no model.safetensors"),
        ("training.json", "must be a model with its training.json"),
    ],
)
def test_what_is_not_whole_is_refused(copy, name, message):
    (copy / name).unlink()
    with pytest.raises(UserError, match=message):
        detector_payload(copy, "tester/red", "apache-2.0")


def test_pickles_are_refused(copy):
    (copy / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(UserError, match="must not hold pickles"):
        detector_payload(copy, "tester/red", "apache-2.0")
