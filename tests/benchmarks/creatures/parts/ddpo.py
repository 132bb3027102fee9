"""
Training the generator with rewards (`training/ddpo.py`).

The reward is that of a detector that learned from many labelled pictures; one that learned from others, with another
trunk, guards. The LoRA is trained on conditions that the generator knows. The same training by the oracle says how far
any reward could get.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from tests.benchmarks.creatures.detectors import trained
from tests.benchmarks.creatures.effects import WITNESSES, effect
from tests.benchmarks.creatures.loras import (
    GUARD_BANDS,
    TRAINED_AGAINST,
    Settings,
    draw_with_lora,
    drawn_and_guarded,
    ending,
    train_lora,
)
from tests.benchmarks.creatures.world import World


ORACLE = "function=tests.benchmarks.creatures.oracle_reward:fewer_faults"
# Flow-GRPO's fast form: two of the first six steps are noisy.
TRAINING: Settings = {
    "num_inference_steps": 12,
    "prompts_per_step": 4,
    "group_size": 16,
    "batch_size": 32,
    "noisy_steps": "0 1 2 3 4 5",
    "noisy_count": 2,
    "noise_level": 0.7,
    "baseline": "group_mean",
    "lora_rank": 16,
    "learning_rate": 5e-4,
    "weight_decay": 1e-4,
    "max_steps": 120,
    "held_out": 32,
    "picture_batch_size": 32,
    "guard_steps": 15,
    "save_steps": 15,
    "guard_images": 64,
    "gradient_checkpointing": "false",
    # At the usual ones and twice the rate it ended at the first reading.
    "guard_bands": GUARD_BANDS,
}


def run(world: World) -> dict[str, Any]:
    """Train with the detectors, draw and measure."""
    trained(world, TRAINED_AGAINST)
    detector = f"detector={world.work / 'detectors' / TRAINED_AGAINST}"
    return {**_rewarded(world, "ddpo", detector), "reward": TRAINED_AGAINST, "settings": TRAINING}


def run_by_the_oracle(world: World) -> dict[str, Any]:
    """Train with the oracle, draw and measure."""
    return {**_rewarded(world, "ddpo_by_the_oracle", ORACLE), "settings": TRAINING}


def _rewarded(world: World, name: str, reward: str) -> dict[str, Any]:
    folder = train_lora(world, name, "ddpo", TRAINING, *drawn_and_guarded(world), "--rewards", reward)
    pictures = world.pictures(name, partial(draw_with_lora, folder, world.draw))
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        **effect(world, name, pictures, WITNESSES),
        "training": ending(folder),
        "curve": [round(entry["reward"], 4) for entry in log],
    }
