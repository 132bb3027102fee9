"""
Treating the generator with detectors (`training/treat_lora.py`), and guidance of the treated generator.

The LoRA is trained against the detectors that guide in `guided`; the one that learned from all of their data guards,
and clean renders are the real images.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.creatures.detectors import trained
from tests.benchmarks.creatures.effects import effect
from tests.benchmarks.creatures.loras import Settings, draw_with_lora, drawn_and_guarded, ending, train_lora
from tests.benchmarks.creatures.parts.guided import GUIDE, GUIDES, best_strength, draw_guided, tuning_curve
from tests.benchmarks.creatures.world import World


TRAINING: Settings = {
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
}


def run(world: World) -> dict[str, Any]:
    """Train the LoRA, and draw the pictures with it."""
    folder = lora_of(world)
    pictures = world.pictures("treated", partial(draw_with_lora, folder, world.draw))
    return {**effect(world, "treated", pictures), "training": ending(folder), "settings": TRAINING}


def run_guided(world: World) -> dict[str, Any]:
    """Draw the pictures with the LoRA and with guidance, of the strength that `guided` chose."""
    strength = best_strength(tuning_curve(world, GUIDE))
    draw_some = partial(draw_with_lora, lora_of(world), partial(draw_guided, world, GUIDE, strength))
    pictures = world.pictures("treated_guided", draw_some)
    return {**effect(world, "treated_guided", pictures), "strength": strength}


def lora_of(world: World) -> Path:
    """Return the folder of the LoRA, which is trained if it is missing."""
    for name in GUIDES[GUIDE]:
        trained(world, name)
    detectors = [world.work / "detectors" / name for name in GUIDES[GUIDE]]
    more: list[str | Path | int] = ["--num_inference_steps", world.steps, "--detector", *detectors]
    return train_lora(world, "treated", "treat_lora", TRAINING, *drawn_and_guarded(world), *more)
