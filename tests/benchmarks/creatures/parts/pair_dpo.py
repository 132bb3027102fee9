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

import numpy as np

from tests.benchmarks.creatures.annotations import ANNOTATIONS, write_photos
from tests.benchmarks.creatures.generator import MAX_TOKENS, load_generator
from tests.benchmarks.creatures.measures import compared, figures_of, judge_all
from tests.benchmarks.creatures.renderer import render_many
from tests.benchmarks.creatures.scene import SIDE
from tests.benchmarks.creatures.sheets import write_sheet
from tests.benchmarks.creatures.world import World
from tests.benchmarks.learning import artiagent, once
from tests.benchmarks.learning import run as run_python


# Renders that artifacts are put into, as a share of the pictures that are compared, and pairs of each.
PHOTOS, PAIRS_EACH = 0.8, 2
# A margin that gaps of this generator can reach: its errors are larger than those of a large model.
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
    lora = train(world, TRAINING)
    pipe = load_generator(world.generator)
    pipe.load_lora_weights(lora)
    pictures = world.pictures("pair_dpo", lambda _, prompts, seeds: world.draw(pipe, prompts, seeds))
    write_sheet(pictures, world.words, world.work / "pair_dpo.png")
    before, after = (
        np.array([verdict.has_artifact for verdict in judge_all(some, world.words)])
        for some in (world.pictures("base"), pictures)
    )
    record = json.loads((Path(lora) / "training.json").read_text(encoding="utf-8"))
    return {
        **figures_of(pictures, world.words, np.stack([render.image for render in world.clean])),
        **compared(before, after),
        "held_out_pairs": record["data"]["preference"],
        "training": TRAINING,
    }


def train(world: World, values: dict[str, str | int | float]) -> Path:
    """Make pairs and train, unless that is done, and return the folder of the LoRA."""
    work = world.work / "pair_dpo_training"
    photos = once(work / "photos", lambda: _write_photos(world, work / "photos"))

    def synthesize() -> None:
        artiagent(
            *("synthesize", photos, work / "pairs", "--annotations", photos / ANNOTATIONS),
            *("--model", world.generator, "--seed", world.seed, "--store-noise"),
            # Pixels of an eye are more than those of one patch, those of two are not.
            *("--pairs-per-image", PAIRS_EACH, "--min-part-patches", 1, "--max-artifacts", 1),
        )

    # A run is complete once it has its card.
    once(work / "pairs" / "README.md", synthesize)
    out = work / "lora"
    given = [text for name, value in values.items() for text in (f"--{name}", str(value))]
    once(
        out / "training.json",
        lambda: run_python(
            *("-m", "training.pair_dpo", "--model_name_or_path", world.generator, "--pairs", work / "pairs"),
            *("--size", f"{SIDE}x{SIDE}", "--num_inference_steps", world.steps),
            *("--max_sequence_length", MAX_TOKENS, "--guidance_scale", "1.0", "--use_cpu", "true"),
            *("--seed", world.seed, "--output_dir", out, *given),
        ),
    )
    return out


def _write_photos(world: World, folder: Path) -> None:
    write_photos(render_many(round(PHOTOS * world.number), world.seed, "photos"), folder)
