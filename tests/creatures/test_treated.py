"""The part that treats the generator, with random weights and detectors in the places of others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import datasets_script.detection.pixel as pixel
from tests.benchmarks.creatures import loras
from tests.benchmarks.creatures.autoencoder import fit_encoder
from tests.benchmarks.creatures.detectors import LESSONS
from tests.benchmarks.creatures.generator import TRAINED, new_generator
from tests.benchmarks.creatures.parts import guided, treated
from tests.benchmarks.creatures.renderer import render_many
from tests.benchmarks.creatures.world import World
from tests.helpers.tiny_detectors import red_detector


@pytest.fixture
def world(tmp_path: Path) -> World:
    images = np.stack([one.image for one in render_many(40, 0, "test treated")])
    pipe = new_generator(fit_encoder(images))
    for name in (*TRAINED, "vae"):
        getattr(pipe, name).to(torch.bfloat16)
    pipe.save_pretrained(tmp_path / "generator")
    world = World(tmp_path / "generator", tmp_path / "work", number=2, steps=4, seed=0)
    for name in LESSONS:
        shutil.copytree(Path(pixel.__file__).parent / "embedded", world.work / "detectors" / name)
    # The guard must be another than those that are trained against.
    red_detector().save_pretrained(world.work / "detectors" / loras.GUARD)
    return world


def test_the_generator_is_treated_and_guided(world, monkeypatch):
    monkeypatch.setattr(loras, "REAL_IMAGES", 6)
    monkeypatch.setattr(guided, "STRENGTHS", (0.0,))
    monkeypatch.setattr(guided, "TUNING", 1)
    changes = {"max_steps": 1, "batch_size": 2, "real_batch_size": 2, "guard_images": 2, "held_out": 1}
    # Random weights may change as they like.
    free = {"learning_rate": 0.1, "ema_decay": 0, "guard_bands": "denoising_loss=:"}
    monkeypatch.setattr(treated, "TRAINING", {**treated.TRAINING, **changes, **free})
    folder = treated.lora_of(world)
    record = json.loads((folder / "training.json").read_text())
    rows = (world.work / "data" / "real_images" / "metadata.jsonl").read_text().splitlines()
    assert len(rows) == 6 and json.loads(rows[0])["text"].startswith("a")
    assert record["data"]["real_images"]["count"] == 4 and record["data"]["guard_images"]["count"] == 2
    assert {one["detector"] for one in record["data"]["frequencies"]} == {"injected", "corrupted", "mixture"}
    known = (world.work / "data" / "known_prompts.txt").read_text().splitlines()
    assert not {words.prompt for words in world.words} & set(known) and len(known) > 300

    block = treated.run(world)
    assert block["training"]["steps"] == 1 and block["pictures"] == 2
    base = world.pictures("base")
    assert np.array_equal(world.draw(world.pipe, [words.prompt for words in world.words], world.seeds), base)
    changed = not np.array_equal(world.pictures("treated"), base)
    assert changed == (block["training"]["kept_step"] == 1)
    both = treated.run_guided(world)
    assert both["strength"] == 0.0
    assert np.array_equal(world.pictures("treated_guided"), world.pictures("treated"))
