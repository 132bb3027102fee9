"""The fingerprint of a model's folder: of what is loaded, and of nothing else that lies there."""

from __future__ import annotations

import json

import pytest

from datasets_script.utils.files import fingerprint


@pytest.fixture
def model(tmp_path):
    for name in ("config.json", "preprocessor_config.json", "tokenizer.json", "chat_template.jinja"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(bytes(100))
    return tmp_path


@pytest.mark.parametrize(
    "name",
    ["report.json", "scores.json", "training.json", "trainer_state.json", "predictions.jsonl", "README.md"]
    + ["checkpoint-8/config.json", "checkpoint-8/model.safetensors", "evaluation/report.json"],
)
def test_what_is_written_beside_a_model_is_not_the_model(model, name):
    before = fingerprint(model)
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_text("{}")
    assert fingerprint(model) == before


@pytest.mark.parametrize(
    "name",
    ["config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"]
    + ["tokenizer.json", "chat_template.jinja", "adapter_config.json", "adapter_model.safetensors"]
    + ["model.safetensors", "model.safetensors.index.json"],
)
def test_what_is_loaded_is_the_model(model, name):
    before = fingerprint(model)
    (model / name).write_text('{"changed": true}')
    assert fingerprint(model) != before


def test_the_components_of_a_pipeline_are_part_of_it(model):
    (model / "vae").mkdir()
    (model / "vae" / "config.json").write_text("{}")
    (model / "model_index.json").write_text(json.dumps({"_class_name": "P", "vae": ["diffusers", "AutoencoderKL"]}))
    before = fingerprint(model)
    (model / "vae" / "config.json").write_text('{"changed": true}')
    assert fingerprint(model) != before
