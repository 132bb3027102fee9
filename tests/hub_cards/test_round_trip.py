"""Push each kind to a Hub on localhost, and load it in another process that knows only the Hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from ..diffusers_artifact.test_loading import NOT_INSTALLED
from ..helpers.local_hub import LocalHub
from ..helpers.tiny_pipelines import tiny_flux
from ..helpers.tiny_vlms import tiny_llava
from .test_push import BASE, ROOT, reachable_hub, run_command, training_record, write_dataset, write_model


LOAD_VLMS = """
import json, sys
import torch
from PIL import Image
from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor

def answer(model):
    content = [{"type": "image", "image": Image.new("RGB", (28, 28), "red")}, {"type": "text", "text": "Why?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        return model(**inputs).logits[0, -1].tolist()

processor = AutoProcessor.from_pretrained("tester/detector")
model = AutoModelForImageTextToText.from_pretrained("tester/detector")
report = {"model": answer(model)}
base = AutoModelForImageTextToText.from_pretrained("tester/detector")
processor = AutoProcessor.from_pretrained("tester/adapter")
adapted = PeftModel.from_pretrained(base, "tester/adapter")
report["adapter"] = answer(adapted)
report["base"] = adapted.peft_config["default"].base_model_name_or_path
"""

LOAD_THE_REST = """
from datasets import load_dataset
from diffusers import ModularPipelineBlocks

pairs = load_dataset("tester/pairs", split="train")
report["pairs"] = [len(pairs), pairs[0]["pair_id"], pairs[0]["clean"].size]

pipe = load(sys.argv[1])
pipe.set_progress_bar_config(disable=True)
mapping = pipe.mapping_class(targets=(5, 6), references=(9, 10), grid=(4, 4))
photo = Image.new("RGB", (64, 64), "green")
output = pipe(photo, mapping, prompt="a cat", num_inference_steps=1, max_sequence_length=16)
report["pipeline"] = [type(pipe).__module__.partition(".")[0], len(output.images)]
block = ModularPipelineBlocks.from_pretrained("tester/injection", trust_remote_code=True)
report["block"] = type(block).__name__
"""

LOAD_METRIC = """
import evaluate

metric = evaluate.load("tester/miou")
result = metric.compute(predictions=[[(0, 0, 2, 2)]], references=[[(0, 0, 4, 2)]], sizes=[(4, 4)])
report["metric"] = [type(metric).__module__.partition(".")[0], result["miou"]]
print("REPORT" + json.dumps(report))
"""


@dataclass(frozen=True)
class Published:
    hub: LocalHub
    model: Path
    adapter: Path
    pipeline: Path


def run_clean(program: str, folder: Path, hub: LocalHub, *arguments: str) -> str:
    """Run a program in an empty folder with empty caches and without this package, and return its output."""
    folder.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHONPATH"))}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, *arguments],
        cwd=folder,
        env={**kept, **hub.environment(folder / "home")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_adapter(folder: Path, base: Path) -> Path:
    """Write a LoRA adapter as training leaves it, with a local path as its base model."""
    from peft import LoraConfig, get_peft_model

    model, processor = tiny_llava()
    model.name_or_path = str(base)
    torch.manual_seed(0)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(str(folder))
    processor.save_pretrained(folder)
    assert str(base) in (folder / "adapter_config.json").read_text()
    (folder / "training.json").write_text(
        json.dumps(training_record(method={**training_record()["method"], "peft": True}))
    )
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Iterator[Published]:
    folder = tmp_path_factory.mktemp("published")
    model = write_model(folder / "model")
    adapter = write_adapter(folder / "adapter", model)
    tiny_flux().save_pretrained(folder / "flux")
    commands = [
        ["model", str(model), "tester/detector", "--license", "apache-2.0"],
        ["model", str(adapter), "tester/adapter", "--license", "apache-2.0"],
        ["dataset", str(write_dataset(folder / "out")), "tester/pairs", "--license", "cc-by-4.0"],
        ["metric", "miou", "tester/miou"],
        ["pipeline", "tester/injection"],
    ]
    with reachable_hub() as hub:
        assert [run_command(*command) for command in commands] == [0] * len(commands)
        yield Published(hub, model, adapter, folder / "flux")


@pytest.fixture(scope="module")
def loaded(published, tmp_path_factory) -> dict[str, Any]:
    """Load everything in a process that cannot import this package, and return its report."""
    custom = 'CUSTOM_PIPELINE = "tester/injection"\n'
    program = custom + NOT_INSTALLED + LOAD_VLMS + LOAD_THE_REST + LOAD_METRIC
    folder = tmp_path_factory.mktemp("clean") / "process"
    return json.loads(run_clean(program, folder, published.hub, str(published.pipeline)).partition("REPORT")[2])


def logits(model: Any, folder: Path) -> list[float]:
    processor = AutoProcessor.from_pretrained(folder)
    content = [{"type": "image", "image": Image.new("RGB", (28, 28), "red")}, {"type": "text", "text": "Why?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        return model(**inputs).logits[0, -1].tolist()


def test_each_push_is_one_commit(published):
    histories = published.hub.repositories
    assert set(histories) == {
        ("model", "tester/detector"),
        ("model", "tester/adapter"),
        ("model", "tester/injection"),
        ("dataset", "tester/pairs"),
        ("space", "tester/miou"),
    }
    assert {len(history) for history in histories.values()} == {2}
    # The client asks the Hub to check each card once.
    assert published.hub.requests.count("POST /api/validate-yaml") == 5


def test_no_local_path_is_published(published):
    for (kind, repo_id), history in published.hub.repositories.items():
        for name, content in history[-1].files.items():
            for told in (str(published.model.parent), str(ROOT), "/home/alice"):
                assert told.encode() not in content, (kind, repo_id, name, told)


def test_a_model_loads_with_transformers_alone(published, loaded):
    model, _ = tiny_llava()
    assert loaded["model"] == pytest.approx(logits(model, published.model), abs=1e-5)


def test_an_adapter_loads_with_peft(published, loaded):
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(tiny_llava()[0], published.adapter)
    assert loaded["adapter"] == pytest.approx(logits(adapted, published.adapter), abs=1e-5)
    assert loaded["adapter"] != pytest.approx(loaded["model"], abs=1e-5)
    assert loaded["base"] == BASE


def test_a_dataset_loads(loaded):
    assert loaded["pairs"] == [6, "photo0.png:0", [192, 128]]


def test_the_pipeline_loads_with_nothing_installed(loaded):
    assert loaded["pipeline"] == ["diffusers_modules", 1]
    assert loaded["block"] == "ArtifactInjectionBlock"


def test_a_metric_loads_with_nothing_installed(loaded):
    assert loaded["metric"] == ["evaluate_modules", 0.5]
