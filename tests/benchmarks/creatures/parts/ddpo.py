"""
Does a generator draw fewer artifacts once it is trained with rewards?

The reward is that of the detector that learned from all synthetic data; another one guards. Prompts are conditions
that the generator knows, none of those that are measured. The same training by the oracle says how far any reward
could get. The LoRA is loaded into the stock pipeline, and its pictures are compared with those of `base`.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from datasets_script.utils.files import replacing_folder, write_text
from tests.benchmarks.creatures.detectors import trained
from tests.benchmarks.creatures.effects import effect
from tests.benchmarks.creatures.generator import MAX_TOKENS, load_generator
from tests.benchmarks.creatures.parts.guided import JUDGES
from tests.benchmarks.creatures.renderer import render_many
from tests.benchmarks.creatures.scene import SIDE
from tests.benchmarks.creatures.words import all_words, is_held_out
from tests.benchmarks.creatures.world import World
from tests.benchmarks.learning import once
from tests.benchmarks.learning import run as run_python


REWARD, GUARD = "mixture", "corrupted"
ORACLE = "function=tests.benchmarks.creatures.oracle_reward:fewer_faults"
# Fewer steps than pictures are measured with, two of them noisy, as in Flow-GRPO's fast form. No value was tuned.
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
    "learning_rate": 5e-4,
    "weight_decay": 1e-4,
    "max_steps": 120,
    "held_out": 16,
    "pictures_per_prompt": 4,
    "picture_batch_size": 32,
    "guard_steps": 20,
    "save_steps": 10,
}
REAL = 128  # clean renders for the generator's own loss, as a guard


def run(world: World) -> dict[str, Any]:
    """Train with each reward, draw and measure."""
    trained(world, REWARD)
    detector = f"detector={world.work / 'detectors' / REWARD}"
    blocks = {name: _rewarded(world, name, entry) for name, entry in (("ddpo", detector), ("ddpo_oracle", ORACLE))}
    return {**blocks["ddpo"], "reward": REWARD, "training": TRAINING, "by_the_oracle": blocks["ddpo_oracle"]}


def train(world: World, name: str, entry: str) -> Path:
    """Train with a reward, unless that is done, and return the folder of the LoRA."""
    trained(world, GUARD)
    data, out = world.work / "data", world.work / "lora" / name
    prompts = once(data / "prompts.txt", lambda: write_text(data / "prompts.txt", _prompts()))
    real = once(data / "real", partial(_write_real, world, data / "real"))
    options = [word for option, value in TRAINING.items() for word in (f"--{option}", *str(value).split())]
    once(
        out / "training.json",
        lambda: run_python(
            *("-m", "training.ddpo", "--model_name_or_path", world.generator, "--prompts", prompts),
            *("--rewards", entry, "--guard_detector", world.work / "detectors" / GUARD, "--real_images", real),
            *("--size", f"{SIDE}x{SIDE}", "--max_sequence_length", MAX_TOKENS, "--guidance_scale", 1),
            *("--use_cpu", "true", "--seed", world.seed, "--output_dir", out, *options),
        ),
    )
    return out


def _rewarded(world: World, name: str, entry: str) -> dict[str, Any]:
    lora = train(world, name, entry)
    pipe = load_generator(world.generator)
    pipe.load_lora_weights(lora)
    pictures = world.pictures(name, lambda _, prompts, seeds: world.draw(pipe, prompts, seeds))
    record = json.loads((lora / "training.json").read_text(encoding="utf-8"))
    told = {key: record["data"][key] for key in ("guards", "stopped", "kept_step")}
    rewards = [entry["reward"] for entry in map(json.loads, (lora / "log.jsonl").read_text().splitlines())]
    return {**effect(world, name, pictures, JUDGES), **told, "curve": [round(reward, 4) for reward in rewards]}


def _prompts() -> str:
    return "\n".join(words.prompt for words in all_words() if not is_held_out(words)) + "\n"


def _write_real(world: World, folder: Path) -> None:
    """Write clean renders with their prompts."""
    with replacing_folder(folder) as temporary:
        lines = []
        for index, render in enumerate(render_many(REAL, world.seed, "ddpo: real images")):
            render.picture.save(temporary / f"{index:04d}.png")
            lines.append(json.dumps({"file_name": f"{index:04d}.png", "text": render.words.prompt}))
        write_text(temporary / "metadata.jsonl", "\n".join(lines) + "\n")
