"""The part that treats the generator, with random weights and detectors in the places of others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.creatures import loras
from tests.benchmarks.creatures.parts import guided, treated
from tests.benchmarks.creatures.world import World
from tests.creatures.tiny_world import tiny_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    return tiny_world(tmp_path, number=2, steps=4)


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
    assert {one["detector"] for one in record["data"]["frequencies"]} == {*treated.OPPONENTS, loras.GUARD}
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
    assert treated.GUIDE not in treated.OPPONENTS
