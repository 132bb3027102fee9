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
from pathlib import Path
from typing import Any

from datasets_script.utils.files import write_text
from tests.benchmarks.creatures.detectors import trained
from tests.benchmarks.creatures.effects import effect
from tests.benchmarks.creatures.generator import MAX_TOKENS
from tests.benchmarks.creatures.parts.guided import GUIDE, GUIDES, JUDGES
from tests.benchmarks.creatures.parts.treated import GUARD, REAL_IMAGES, draw_with_lora, write_real
from tests.benchmarks.creatures.scene import SIDE
from tests.benchmarks.creatures.words import all_words, is_held_out
from tests.benchmarks.creatures.world import World
from tests.benchmarks.learning import once
from tests.benchmarks.learning import run as run_python


ORACLE = "function=tests.benchmarks.creatures.oracle_reward:fewer_faults"
# Flow-GRPO's fast form: two of the first six steps are noisy. No value was tuned.
TRAINING: dict[str, str | int | float] = {
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
    "use_cpu": "true",
}


def run(world: World) -> dict[str, Any]:
    """Train with the detectors and with the oracle, draw and measure."""
    detectors = [f"detector={world.work / 'detectors' / name}" for name in GUIDES[GUIDE]]
    return {
        **_rewarded(world, "ddpo", detectors),
        "rewards": GUIDES[GUIDE],
        "settings": TRAINING,
        "by_the_oracle": _rewarded(world, "ddpo_oracle", [ORACLE]),
    }


def lora_of(world: World, name: str, rewards: Sequence[str]) -> Path:
    """
    Return the folder of a LoRA, which is trained if it is missing.

    Args:
        world (`World`): Settings of the run.
        name (`str`): Name of the folder.
        rewards (`Sequence[str]`): Rewards as `training.ddpo` takes them.
    """
    work = world.work / "ddpo_lora"
    prompts = once(work / "prompts.txt", lambda: write_text(work / "prompts.txt", _known_prompts()))
    photos = once(work / "photos", lambda: write_real(world.seed, work / "photos"))
    for detector in (*GUIDES[GUIDE], GUARD):
        trained(world, detector)

    def train() -> None:
        run_python(
            *("-m", "training.ddpo", "--model_name_or_path", world.generator, "--prompts", prompts),
            *("--size", f"{SIDE}x{SIDE}", "--max_sequence_length", MAX_TOKENS),
            *("--seed", world.seed, "--output_dir", work / name),
            *("--rewards", *rewards),
            *("--guard_detector", world.work / "detectors" / GUARD),
            *("--real_images", photos, "--real_limit", REAL_IMAGES),
            *(word for option, value in TRAINING.items() for word in (f"--{option}", *str(value).split())),
        )

    once(work / name / "training.json", train)
    return work / name


def _rewarded(world: World, name: str, rewards: Sequence[str]) -> dict[str, Any]:
    folder = lora_of(world, name, rewards)
    pictures = world.pictures(name, partial(draw_with_lora, folder, world.draw))
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        **effect(world, name, pictures, JUDGES),
        "training": {key: record["data"][key] for key in ("kept_step", "stopped", "guards")},
        "curve": [round(entry["reward"], 4) for entry in log],
    }


def _known_prompts() -> str:
    return "\n".join(words.prompt for words in all_words() if not is_held_out(words)) + "\n"
