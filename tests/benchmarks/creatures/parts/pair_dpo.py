"""
Does a generator draw fewer artifacts of its own once it prefers clean renders to those that artifacts were put into?

The pairs are clean renders and what `artiagent synthesize` makes of them with this generator, each image with the
noise that it inverts to; nobody has looked at a picture of the generator, and no detector takes part. The LoRA is
loaded into the stock pipeline, and its pictures are compared with those of `base`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.benchmarks.creatures.annotations import ANNOTATIONS, write_photos
from tests.benchmarks.creatures.detectors import COMMANDS, PAIRS_EACH, PHOTOS
from tests.benchmarks.creatures.effects import effect
from tests.benchmarks.creatures.generator import MAX_TOKENS, load_generator
from tests.benchmarks.creatures.parts.guided import JUDGES
from tests.benchmarks.creatures.renderer import render_many
from tests.benchmarks.creatures.scene import SIDE
from tests.benchmarks.creatures.world import World
from tests.benchmarks.learning import artiagent, once
from tests.benchmarks.learning import run as run_python


# The margin is larger than published, as are the errors of this generator. No value was tuned.
TRAINING: dict[str, str | int | float] = {
    "noise": "own",
    "mask_weight": 10,
    "margin": 0.05,
    "batch_size": 8,
    "max_steps": 400,
    "learning_rate": 2e-4,
    "lora_rank": 16,
    "guard_steps": 50,
    "save_steps": 50,
    "test_share": 0.1,
    "test_limit": 40,
}


def run(world: World) -> dict[str, Any]:
    """Make the pairs, train, draw and measure."""
    lora = train(world)
    pipe = load_generator(world.generator)
    pipe.load_lora_weights(lora)
    pictures = world.pictures("pair_dpo", lambda _, prompts, seeds: world.draw(pipe, prompts, seeds))
    record = json.loads((lora / "training.json").read_text(encoding="utf-8"))
    told = {name: record["data"][name] for name in ("preference", "guards", "stopped", "kept_step")}
    return {**effect(world, "pair_dpo", pictures, JUDGES), **told, "training": TRAINING}


def train(world: World) -> Path:
    """Make pairs and train, unless that is done, and return the folder of the LoRA."""
    pairs, out = world.work / "data" / "pairs_with_noise", world.work / "lora" / "pair_dpo"
    # A run is complete once it has its card.
    once(pairs / "README.md", lambda: _synthesize(world, pairs))
    given: list[str | Path | int] = [
        *("--model_name_or_path", world.generator, "--pairs", pairs, "--output_dir", out, "--seed", world.seed),
        *("--size", f"{SIDE}x{SIDE}", "--num_inference_steps", world.steps, "--max_sequence_length", MAX_TOKENS),
        *(text for name, value in TRAINING.items() for text in (f"--{name}", str(value))),
    ]
    once(
        out / "training.json",
        lambda: run_python("-m", "training.pair_dpo", "--use_cpu", "true", *given),
    )
    return out


def _synthesize(world: World, pairs: Path) -> None:
    photos = world.work / "data" / "photos"
    once(photos, lambda: write_photos(render_many(round(PHOTOS * world.number), world.seed, "photos"), photos))
    command, *options = COMMANDS["injected"]
    artiagent(
        *(command, photos, pairs, *options, "--annotations", photos / ANNOTATIONS, "--model", world.generator),
        *("--seed", world.seed, "--store-noise", "--pairs-per-image", PAIRS_EACH),
        # Pixels of an eye are more than those of one patch, those of two are not.
        *("--min-part-patches", 1, "--max-artifacts", 1),
    )
