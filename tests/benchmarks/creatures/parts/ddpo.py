"""
Training the generator with rewards (`training/ddpo.py`).

The rewards are those of the detectors that guide in `guided`; the one that learned from all of their data guards. The
LoRA is trained on conditions that the generator knows, in fewer steps than pictures are measured with. The same
training by the oracle says how far any reward could get.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from tests.benchmarks.creatures.detectors import trained
from tests.benchmarks.creatures.effects import effect
from tests.benchmarks.creatures.loras import Settings, draw_with_lora, drawn_and_guarded, ending, train_lora
from tests.benchmarks.creatures.parts.guided import GUIDE, GUIDES
from tests.benchmarks.creatures.world import World


ORACLE = "function=tests.benchmarks.creatures.oracle_reward:fewer_faults"
# Flow-GRPO's fast form: two of the first six steps are noisy. No value was tuned.
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
    "learning_rate": 1e-3,
    "weight_decay": 1e-4,
    "max_steps": 150,
    "held_out": 32,
    "picture_batch_size": 32,
    "guard_steps": 15,
    "save_steps": 15,
    "guard_images": 64,
    "gradient_checkpointing": "false",
}


def run(world: World) -> dict[str, Any]:
    """Train with the detectors and with the oracle, draw and measure."""
    for name in GUIDES[GUIDE]:
        trained(world, name)
    detectors = [f"detector={world.work / 'detectors' / name}" for name in GUIDES[GUIDE]]
    return {
        **_rewarded(world, "ddpo", detectors),
        "rewards": GUIDES[GUIDE],
        "settings": TRAINING,
        "by_the_oracle": _rewarded(world, "ddpo_oracle", [ORACLE]),
    }


def _rewarded(world: World, name: str, rewards: Sequence[str]) -> dict[str, Any]:
    folder = train_lora(world, name, "ddpo", TRAINING, *drawn_and_guarded(world), "--rewards", *rewards)
    pictures = world.pictures(name, partial(draw_with_lora, folder, world.draw))
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        **effect(world, name, pictures),
        "training": ending(folder),
        "curve": [round(entry["reward"], 4) for entry in log],
    }
