"""The push of a LoRA: its files, its card, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import save_file

from datasets_script.utils.errors import UserError
from hub_cards.cards import _DRAWN
from hub_cards.kinds.lora import _STEM, lora_payload
from hub_cards.payload import missing_mark
from training.denoiser.arguments import DenoiserArguments

from .test_push import training_record


FREQUENCY = {
    "first": 0.8266,
    "second": 0.22,
    "difference": -0.6066,
    "difference_interval": [-0.7, -0.5],
    "n": 100,
}
MEAN = {"first": 0.1234, "second": 0.0456, "difference": -0.0778, "difference_interval": [None, None], "n": 100}
DATA = {
    "prompts": {"count": 3000, "sha256": "0123"},
    "held_out": {"count": 100, "pictures": 100, "seeds": [11, 22]},
    "stopped": "blockiness moved by +12.0%, from 1.05 to 1.176, where no limit to +10% is allowed",
    "kept_step": 30,
    "guards": [{"guard": "blockiness", "band": "no limit to +10%", "before": 1.05, "after": 1.08}],
    "frequencies": [
        {"detector": "a", "trained_against": True, "frequency": FREQUENCY, "mean_map": MEAN},
        {"detector": "b", "trained_against": False, "frequency": {**FREQUENCY, "second": 0.6}, "mean_map": MEAN},
    ],
}
BASE = {"id": "black-forest-labs/FLUX.1-schnell", "revision": "c" * 40}
RECIPE = {"num_inference_steps": 4, "guidance_scale": 0.0, "size": "1024x768"}


def record(**changes) -> str:
    method = {"peft": True, "frozen": ["transformer"], "trainable_parameters": 12, "parameters": 345}
    given = {"script": "training/treat_lora.py", "data": DATA, "base_model": BASE, "recipe": RECIPE, "method": method}
    return json.dumps(training_record(**{**given, **changes}))


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "lora"
    (folder / "pictures").mkdir(parents=True)
    (folder / "checkpoint-3").mkdir()
    save_file({"transformer.x.lora_A.weight": torch.zeros(1)}, folder / f"{_STEM}.safetensors")
    for name in ("before", "after", "step-000003"):
        Image.new("RGB", (8, 8)).save(folder / "pictures" / f"{name}.png")
    (folder / "training.json").write_text(record())
    (folder / "log.jsonl").write_text("{}\n")
    return folder


def test_a_lora_is_its_weights_its_record_and_two_pictures(folder):
    from training.denoiser.lora import LORA_FILE

    assert LORA_FILE == f"{_STEM}.safetensors"
    payload = lora_payload(folder, "tester/lora", "apache-2.0")
    assert missing_mark(payload.kind, payload.repo_id, [file.path for file in payload.files]) is None
    assert [file.path for file in payload.files] == [
        *("README.md", "pictures/after.png", "pictures/before.png", LORA_FILE, "training.json")
    ]
    assert {"log.jsonl", "pictures/step-000003.png"} <= set(payload.left_out)


def test_its_card_says_what_is_on_record(folder):
    card = ModelCard(lora_payload(folder, "tester/lora", "apache-2.0").card)
    metadata = card.data.to_dict()
    assert metadata["base_model"] == BASE["id"] and metadata["base_model_relation"] == "adapter"
    assert metadata["library_name"] == "diffusers" and metadata["pipeline_tag"] == "text-to-image"
    assert "lora" in metadata["tags"] and "artifact-detection" not in metadata["tags"]
    for text in (
        "| a | trained against | 82.7% | 22.0% | -0.607 (-0.700 to -0.500) | 0.1234 | 0.0456 | 100 |",
        "| b | judge | 82.7% | 60.0% |",
        "| blockiness | no limit to +10% | 1.05 | 1.08 |",
        "The weights are those of step 30 of 40, where training was stopped: blockiness moved by +12.0%",
        'pipe.load_lora_weights("tester/lora")',
        "num_inference_steps=4, guidance_scale=0.0, width=1024, height=768",
        "| held out, seeds | 11, 22 |",
        "![before training](pictures/before.png)",
        "training/treat_lora.py",
    ):
        assert text in card.text, text
    compile(card.text.split("```python\n")[1].split("```")[0], "card", "exec")


def test_its_card_says_if_pictures_were_not_drawn_with_the_scheduler_of_the_pipeline(folder):
    own = {"scheduler": "PNDMScheduler", "pipeline_scheduler": "PNDMScheduler"}
    (folder / "training.json").write_text(record(data={**DATA, **own}))
    same = lora_payload(folder, "tester/lora", "mit").card
    (folder / "training.json").write_text(record(data={**DATA, **own, "scheduler": "DDIMScheduler"}))
    other = lora_payload(folder, "tester/lora", "mit").card
    sentence = "were drawn with `DDIMScheduler`, as in training, and not with the pipeline's `PNDMScheduler`"
    assert "were drawn with" not in same and sentence in other
    assert "\n\n\n" not in same and "\n\n\n" not in other


def test_a_card_tells_the_defaults_that_a_recipe_leaves_out():
    given = DenoiserArguments()
    assert _DRAWN == {name: getattr(given, name) for name in _DRAWN}


def test_cards_of_other_loras(folder):
    """One without judges, guards and pictures, of a model in a folder; and one of the model of this package."""
    shutil.rmtree(folder / "pictures")
    (folder / "training.json").write_text(
        record(data={"kept_step": 40, "stopped": None}, base_model={"id": "mine", "revision": "sha256:0"})
    )
    card = lora_payload(folder, "tester/lora", "mit").card
    assert "No frequencies are on record." in card and "No guards are on record." in card
    assert "step 40 of 40; all guards held." in card and 'from_pretrained("path/to/mine"' in card
    assert "![" not in card and "base_model:" not in card
    (folder / "training.json").write_text(record(base_model={"id": "embedded", "revision": "sha256:0"}))
    assert "ArtifactInjectionPipeline.from_pretrained(EMBEDDED_MODEL)" in lora_payload(folder, "t/lora", "mit").card


def test_what_cannot_be_published_is_refused(folder):
    with pytest.raises(UserError, match="--license must be given"):
        lora_payload(folder, "tester/lora", None)
    (folder / "training.json").write_text(record(data={**DATA, "kept_step": 0}))
    with pytest.raises(UserError, match="must be a LoRA that changes its model, got .*: blockiness moved"):
        lora_payload(folder, "tester/lora", "mit")
    (folder / f"{_STEM}.safetensors").unlink()
    with pytest.raises(UserError, match=f"got no {_STEM}.safetensors"):
        lora_payload(folder, "tester/lora", "mit")
