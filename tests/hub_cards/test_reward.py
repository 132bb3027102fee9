"""The push of a reward model: its files, its card, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from datasets_script.utils.errors import UserError
from hub_cards.kinds.reward import _RECORD, reward_payload
from hub_cards.payload import missing_mark

from ..helpers.tiny_rewards import tiny_reward
from .test_push import training_record


SCORES = {
    "pair_accuracy": 0.975,
    "pair_accuracy_interval": [0.95, 0.99],
    "cross_scene_auc": 0.8125,
    "cross_scene_auc_interval": [0.75, 0.86],
    "n": 40,
    "n_photos": 9,
}
REPORT = {
    **SCORES,
    "by_type": {"fusion": {**SCORES, "n": 7, "cross_scene_auc": None}},
    "controls": {"reconstruction_against_photo": {**SCORES, "pair_accuracy": 0.5}},
    "sources": [{"source": "/home/alice/pairs"}],
    "versions": {"torch": "2.15.0"},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reward") / "tiny"
    tiny_reward("siglip_base").save_pretrained(folder)
    record = training_record(script="training/train_reward.py")
    del record["data"]["coordinates"]
    (folder / "training.json").write_text(json.dumps(record))
    (folder / "reward_report.json").write_text(json.dumps(REPORT))
    (folder / "training_args.bin").write_bytes(b"a pickle")
    return folder


@pytest.fixture
def copy(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def test_a_reward_model_is_its_weights_and_records(trained):
    from datasets_script.detection.reward.record import REWARD_FILE

    assert _RECORD == REWARD_FILE
    payload = reward_payload(trained, "tester/reward", "apache-2.0")
    assert missing_mark(payload.kind, payload.repo_id, [file.path for file in payload.files]) is None
    assert [file.path for file in payload.files] == [
        *("README.md", "config.json", "model.safetensors", "reward_model.json", "reward_report.json", "training.json")
    ]
    assert payload.left_out == ("training_args.bin",)
    assert b"/home/alice" not in {file.path: file.read() for file in payload.files}["reward_report.json"]


def test_its_card_says_what_is_on_record(trained, copy):
    card = ModelCard(reward_payload(trained, "tester/reward", "apache-2.0").card)
    metadata = card.data.to_dict()
    assert metadata["base_model"] == "someone/base-vlm" and "reward-model" in metadata["tags"]
    for text in (
        "`siglip_vision_model`",
        'RewardModel.from_pretrained("tester/reward")',
        "| all | 40 | 9 | 0.975 (0.950 – 0.990) | 0.812 (0.750 – 0.860) |",
        "| fusion | 7 | 9 | 0.975 (0.950 – 0.990) | – |",
        "| control: reconstruction against photo | 40 | 9 | 0.500",
        "| preprocessing, length | 64 |",
        "| head, kind | pooled |",
        "training/train_reward.py",
    ):
        assert text in card.text, text
    compile(card.text.split("```python\n")[1].split("```")[0], "card", "exec")
    (copy / "reward_report.json").unlink()
    assert "No scores are on record." in reward_payload(copy, "tester/reward", "apache-2.0").card


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("reward_model.json", "must be a reward model with reward_model.json, got '.*' without it"),
        ("config.json", "must be a reward model with config.json"),
        ("model.safetensors", "must hold the model's weights as safetensors, got no model.safetensors"),
        ("training.json", "must be a model with its training.json"),
    ],
)
def test_what_is_not_whole_is_refused(copy, name, message):
    (copy / name).unlink()
    with pytest.raises(UserError, match=message):
        reward_payload(copy, "tester/reward", "apache-2.0")


def test_a_licence_is_needed(copy):
    with pytest.raises(UserError, match="--license must be given"):
        reward_payload(copy, "tester/reward", None)
