"""The record of a training is read as it was written, and other programs' files are told apart."""

from __future__ import annotations

import json

import pytest

from datasets_script.schema.training_record import BaseModel, TrainingFacts, TrainingMethod, TrainingRecord
from datasets_script.utils.errors import UserError


RECORD = TrainingRecord(
    script="training/sft_vlm.py",
    recipe={"learning_rate": 1e-5, "freeze": ["vision"]},
    base=BaseModel("tuned", "sha256:ab", BaseModel("someone/base", "c" * 40)),
    method=TrainingMethod(peft=False, frozen=("vision",), trainable_parameters=12, parameters=34),
    data={"source": "someone/pairs", "pairs": {"train": 8}, "coordinates": "normalized"},
    seed=7,
    versions={"torch": "2.15.0"},
    device="cpu",
    devices=1,
    seconds=61.2,
    resumed_from_step=None,
    steps=40,
    loss=((1, 4.0), (2, 2.0)),
    eval_loss=(),
)
# The stored form, which must not change.
STORED = {
    "format": 1,
    "script": "training/sft_vlm.py",
    "recipe": {"learning_rate": 1e-5, "freeze": ["vision"]},
    "base_model": {
        "id": "tuned",
        "revision": "sha256:ab",
        "base_model": {"id": "someone/base", "revision": "c" * 40},
    },
    "method": {"peft": False, "frozen": ["vision"], "trainable_parameters": 12, "parameters": 34},
    "data": {"source": "someone/pairs", "pairs": {"train": 8}, "coordinates": "normalized"},
    "seed": 7,
    "versions": {"torch": "2.15.0"},
    "device": "cpu",
    "devices": 1,
    "seconds": 61.2,
    "resumed_from_step": None,
    "steps": 40,
    "loss": [[1, 4.0], [2, 2.0]],
    "eval_loss": [],
}


def test_a_record_is_stored_as_before_and_read_as_it_was_written(tmp_path):
    RECORD.write(tmp_path)
    text = (tmp_path / "training.json").read_text()
    assert text == json.dumps(STORED, indent=1) + "\n"
    assert TrainingRecord.read(tmp_path) == RECORD
    assert RECORD.is_of_pairs and RECORD.dataset_ids == ("someone/pairs",)
    assert RECORD.base.on_hub == BaseModel("someone/base", "c" * 40)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "must be JSON"),
        ("[]", "must be of format 1"),
        (json.dumps({**STORED, "format": 2}), "must be of format 1 .*; lacks it"),
        (json.dumps({name: value for name, value in STORED.items() if name != "seed"}), r"lacks \['seed'\]"),
    ],
)
def test_what_is_no_record_is_refused(content, message, tmp_path):
    (tmp_path / "training.json").write_text(content)
    with pytest.raises(UserError, match=message):
        TrainingRecord.read(tmp_path)


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        (STORED, TrainingFacts(RECORD.base, "normalized")),
        ({"data": {"coordinates": "qwen3"}}, TrainingFacts(None, "qwen3")),
        ([], TrainingFacts()),
        ({"data": [], "base_model": {"name": "x"}}, TrainingFacts()),
        ({"data": {"coordinates": 3}, "base_model": "x"}, TrainingFacts()),
    ],
)
def test_the_facts_of_a_record_are_read_from_any_file(content, facts):
    assert TrainingFacts.from_content(content) == facts
