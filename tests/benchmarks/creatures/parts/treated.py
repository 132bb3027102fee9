"""
Treating the generator with detectors (`training/treat_lora.py`), and guidance of the treated generator.

The LoRA is trained on conditions that the generator knows, against the detectors that guide in `guided`; the one that
learned from all of their data guards, and clean renders are the real images. The oracle sees nothing before the
pictures of the held-out conditions are drawn.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import FluxPipeline

from datasets_script.utils.files import replacing_folder, write_text
from tests.benchmarks.creatures.annotations import file_name
from tests.benchmarks.creatures.detectors import trained
from tests.benchmarks.creatures.effects import effect
from tests.benchmarks.creatures.generator import MAX_TOKENS
from tests.benchmarks.creatures.parts.guided import GUIDE, GUIDES, JUDGES, best_strength, draw_guided, tuning_curve
from tests.benchmarks.creatures.renderer import render_many
from tests.benchmarks.creatures.scene import SIDE
from tests.benchmarks.creatures.words import all_words, is_held_out
from tests.benchmarks.creatures.world import World
from tests.benchmarks.learning import once
from tests.benchmarks.learning import run as run_python


GUARD = "mixture"
REAL_IMAGES = 320
TRAINING: dict[str, str | int | float] = {
    "pixels": "threshold",
    "gradient_steps": "25%",
    "gamma": 0.25,
    "lora_rank": 16,
    "learning_rate": 2e-4,
    "max_steps": 200,
    "batch_size": 8,
    "accumulation": 1,
    "real_batch_size": 8,
    "held_out": 32,
    "picture_batch_size": 32,
    "guard_steps": 20,
    "save_steps": 20,
    "guard_images": 64,
    "gradient_checkpointing": "false",
    "use_cpu": "true",
}


def run(world: World) -> dict[str, Any]:
    """Train the LoRA, and draw the pictures with it."""
    folder = lora_of(world)
    pictures = world.pictures("treated", partial(draw_with_lora, folder, world.draw))
    return {**effect(world, "treated", pictures, JUDGES), "training": _facts(folder)}


def run_guided(world: World) -> dict[str, Any]:
    """Draw the pictures with the LoRA and with guidance, of the strength that `guided` chose."""
    strength = best_strength(tuning_curve(world, GUIDE))
    draw_some = partial(draw_with_lora, lora_of(world), partial(draw_guided, world, GUIDE, strength))
    pictures = world.pictures("treated_guided", draw_some)
    return {**effect(world, "treated_guided", pictures, JUDGES), "strength": strength}


def lora_of(world: World, **changes: str | int | float) -> Path:
    """
    Return the folder of the LoRA, which is trained if it is missing.

    Args:
        world (`World`): Settings of the run.
        changes: Values in place of those of `TRAINING`.
    """
    work = world.work / "treated_lora"
    prompts = once(work / "prompts.txt", lambda: write_text(work / "prompts.txt", "\n".join(_known_prompts()) + "\n"))
    photos = once(work / "photos", lambda: write_real(world.seed, work / "photos"))
    for name in (*GUIDES[GUIDE], GUARD):
        trained(world, name)
    detectors = world.work / "detectors"
    values = {**TRAINING, **changes}

    def train() -> None:
        run_python(
            *("-m", "training.treat_lora", "--model_name_or_path", world.generator, "--prompts", prompts),
            *("--size", f"{SIDE}x{SIDE}", "--max_sequence_length", MAX_TOKENS),
            *("--num_inference_steps", world.steps, "--seed", world.seed, "--output_dir", work / "lora"),
            "--detector",
            *(detectors / name for name in GUIDES[GUIDE]),
            *("--guard_detector", detectors / GUARD),
            *("--real_images", photos, "--real_limit", REAL_IMAGES),
            *(word for name, value in values.items() for word in (f"--{name}", value)),
        )

    once(work / "lora" / "training.json", train)
    return work / "lora"


def draw_with_lora(
    folder: Path,
    draw_some: Callable[[FluxPipeline, Sequence[str], Sequence[int]], np.ndarray],
    pipe: FluxPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
) -> np.ndarray:
    """Draw pictures with a LoRA in the stock pipeline, which is as before afterwards."""
    with _loaded(pipe, folder):
        return draw_some(pipe, prompts, seeds)


def write_real(seed: int, folder: Path) -> None:
    """Write clean renders of conditions that the generator knows, with their words, as an image folder."""
    renders = [one for one in render_many(2 * REAL_IMAGES, seed, "real images") if not is_held_out(one.words)]
    rows = []
    with replacing_folder(folder) as temporary:
        for index, render in enumerate(renders[:REAL_IMAGES]):
            render.picture.save(temporary / file_name(index))
            rows.append(json.dumps({"file_name": file_name(index), "text": render.words.prompt}))
        (temporary / "metadata.jsonl").write_text("\n".join(rows) + "\n")


@contextmanager
def _loaded(pipe: FluxPipeline, folder: Path) -> Iterator[None]:
    pipe.load_lora_weights(folder)
    try:
        yield
    finally:
        pipe.unload_lora_weights()


def _known_prompts() -> list[str]:
    return [words.prompt for words in all_words() if not is_held_out(words)]


def _facts(folder: Path) -> dict[str, Any]:
    """Return what the record says of the training's end."""
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    return {
        "steps": record["steps"],
        "kept_step": record["data"]["kept_step"],
        "stopped": record["data"]["stopped"],
        "guards": record["data"]["guards"],
    }
