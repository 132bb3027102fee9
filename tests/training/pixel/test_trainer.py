"""The trainer of pixel detectors: how large its steps are, and what it scores, on one process and on two."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset
from transformers import PreTrainedModel, TrainingArguments

from datasets_script.detection.pixel.models import artifact_logits
from datasets_script.detection.pixel.preprocessing import Preprocessing
from tests.helpers.tiny_detectors import tiny_network
from training.pixel.data import Collator
from training.pixel.losses import pixel_loss
from training.pixel.metrics import PixelMetrics
from training.pixel.trainer import PixelTrainer

from ...helpers.paths import ROOT


COLLATOR = Collator(Preprocessing(64))
# Heights and widths of the images of each unit: pairs, and a single image between them.
HELD_OUT = [[(64, 64)] * 2, [(64, 32)], [(32, 64)] * 2, [(64, 64)] * 2, [(24, 64)] * 2]


class Units(Dataset):
    """Units of noise, with an artifact in the first image of each."""

    def __init__(self, shapes: list[list[tuple[int, int]]]) -> None:
        self.shapes = shapes

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, place: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        generator = torch.Generator().manual_seed(place)
        unit = []
        for number, (height, width) in enumerate(self.shapes[place]):
            label = torch.zeros(height, width)
            label[: height // 2] = float(number == 0)
            unit.append((torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8), label))
        return unit


def steady_network() -> PreTrainedModel:
    """Build a network whose training knows no statistics of a batch and no dropout."""
    network = tiny_network("mit_b0")
    for module in network.modules():
        module.register_forward_pre_hook(_evaluate)
    return network


def _evaluate(module: torch.nn.Module, inputs: Any) -> None:
    module.eval()


def make_trainer(folder: Path, network: PreTrainedModel, **options) -> PixelTrainer:
    options = {"optim": "sgd", "lr_scheduler_type": "constant", "learning_rate": 1.0, "max_grad_norm": 0.0} | options
    args = TrainingArguments(
        str(folder),
        use_cpu=True,
        max_steps=1,
        save_strategy="no",
        remove_unused_columns=False,
        label_names=["labels"],
        batch_eval_metrics=True,
        train_sampling_strategy="sequential",
        report_to=[],
        disable_tqdm=True,
        **options,
    )
    data = {"train_dataset": Units([[(64, 64)]] * 4), "eval_dataset": Units(HELD_OUT)}
    return PixelTrainer(model=network, loss="bce", args=args, data_collator=COLLATOR, eval_collator=COLLATOR, **data)


def trained(folder: Path, **options) -> dict[str, torch.Tensor]:
    """Return the weights after one step."""
    network = steady_network()
    make_trainer(folder, network, **options).train()
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def scores_of(trainer: PixelTrainer) -> dict[str, float]:
    return {name: value for name, value in trainer.evaluate().items() if "pixel" in name or "clean" in name}


@pytest.fixture(scope="module")
def step(tmp_path_factory):
    """The weights after one step on a batch of four."""
    after = trained(tmp_path_factory.mktemp("step"), per_device_train_batch_size=4)
    before = steady_network().state_dict()
    assert any(not torch.allclose(value, before[name], atol=1e-3) for name, value in after.items())
    return after


def test_an_accumulated_step_is_that_of_one_batch(step, tmp_path):
    accumulated = trained(tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=4)
    torch.testing.assert_close(accumulated, step, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_held_out_image_is_scored(size, tmp_path):
    """Also those of the last batch, which has fewer units than others."""
    network, units, metrics, losses = tiny_network("mit_b0"), Units(HELD_OUT), PixelMetrics(), []
    for start in range(0, len(units), size):
        some = [units[place] for place in range(start, min(start + size, len(units)))]
        batch = COLLATOR(some)
        with torch.no_grad():
            logits = artifact_logits(network, batch["pixel_values"])
        losses += [float(pixel_loss(logits, batch["labels"], "bce"))] * len(some)
        for one, label in zip(logits, batch["labels"], strict=True):
            metrics.add(one.sigmoid(), label)
    found = make_trainer(tmp_path, network, per_device_eval_batch_size=size).evaluate()
    assert {name: found[f"eval_{name}"] for name in metrics.compute()} == pytest.approx(metrics.compute())
    assert found["eval_loss"] == pytest.approx(sum(losses) / len(losses))


def test_two_processes_step_and_score_as_one(step, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.training.pixel.test_trainer", str(tmp_path)]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **place, "RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors
    torch.testing.assert_close(load_file(tmp_path / "step.safetensors"), step, rtol=1e-4, atol=1e-6)
    # A unit a batch, so that no input depends on the number of processes; one is without a fifth.
    alone = scores_of(make_trainer(tmp_path, tiny_network("mit_b0"), per_device_eval_batch_size=1))
    assert json.loads((tmp_path / "scores.json").read_text()) == pytest.approx(alone)


def run_as_one_of_two(folder: Path) -> None:
    """Do in one of two processes what the test above compares."""
    weights = trained(folder, per_device_train_batch_size=2)
    scores = scores_of(make_trainer(folder, tiny_network("mit_b0"), per_device_eval_batch_size=1))
    if os.environ["RANK"] == "0":
        save_file({name: value.contiguous() for name, value in weights.items()}, folder / "step.safetensors")
        (folder / "scores.json").write_text(json.dumps(scores))


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_as_one_of_two(Path(sys.argv[1]))
