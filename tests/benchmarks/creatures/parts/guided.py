"""
Guidance by a detector while a picture is drawn (`diffusers_artifact/detector_guidance.py`).

The guide learned from labelled pictures of the generator, as DiffDoctor's detector did. Beside it guide one that
learned from four times as many, an ensemble that learned from synthetic artifacts, and a detector that is known to be
hackable. The strength is chosen by the oracle on pictures of other prompts and seeds. What each detector says of the
pictures stands beside what the oracle says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import FluxPipeline

from diffusers_artifact.detector_guidance import DetectorGuidance, settings_for
from tests.benchmarks.creatures.detectors import trained
from tests.benchmarks.creatures.effects import effect
from tests.benchmarks.creatures.generator import draw
from tests.benchmarks.creatures.loras import draw_with_lora
from tests.benchmarks.creatures.measures import judge_all
from tests.benchmarks.creatures.shares import share
from tests.benchmarks.creatures.world import World


# Published is 0.05, the second one.
STRENGTHS = (0.0, 0.05, 0.1, 0.2, 0.4)
TUNING = 100  # pictures of each strength
# Two that call few clean pictures of the generator flawed.
GUIDES = {
    "ensemble": ("injected", "balanced"),
    "oracle": ("oracle",),
    "many_labelled": ("many_labelled",),
    "many_frozen": ("many_frozen",),
    "hackable": ("hackable",),
}
GUIDE, BETTER, SYNTHETIC, HACKABLE = "oracle", "many_frozen", "ensemble", "hackable"


def run(world: World) -> dict[str, Any]:
    """Choose the strength of each guide, and draw the pictures with it."""
    curves = {name: tuning_curve(world, name) for name in (GUIDE, BETTER, SYNTHETIC)}
    strengths = {name: best_strength(curve) for name, curve in curves.items()}
    strengths[HACKABLE] = strengths[SYNTHETIC] or STRENGTHS[1]
    blocks = {
        name: {
            **_guided(world, name, strength),
            "guide": GUIDES[name],
            "strength": strength,
            "artifact_rate_by_strength": curves.get(name),
        }
        for name, strength in strengths.items()
    }
    return {**blocks[GUIDE], "other_guides": {name: blocks[name] for name in (BETTER, SYNTHETIC, HACKABLE)}}


def tuning_curve(world: World, guide: str, lora: Path | None = None) -> dict[float, Any]:
    """Return the artifact rate of pictures of other prompts and seeds at each strength, perhaps with a LoRA."""
    other = replace(world, work=world.work / "tuning", number=TUNING, seed=world.seed + 1)
    curve = {}
    for strength in STRENGTHS:
        name, draw_some = f"{guide}_{strength}", partial(draw_guided, world, guide, strength)
        if lora:
            name, draw_some = f"{lora.name}_{name}", partial(draw_with_lora, lora, draw_some)
        pictures = other.pictures(name, draw_some)
        curve[strength] = share([verdict.has_artifact for verdict in judge_all(pictures, other.words)])
    return curve


def best_strength(curve: dict[float, Any]) -> float:
    """Return the strength of the lowest artifact rate."""
    return min(curve, key=lambda strength: curve[strength]["share"])


def _guided(world: World, guide: str, strength: float) -> dict[str, Any]:
    pictures = world.pictures(f"guided_{guide}", partial(draw_guided, world, guide, strength))
    return effect(world, f"guided_{guide}", pictures)


def draw_guided(
    world: World, guide: str, strength: float, pipe: FluxPipeline, prompts: Sequence[str], seeds: Sequence[int]
) -> np.ndarray:
    """Draw pictures with guidance, of shape `(prompts, 64, 64, 3)`, `uint8`."""
    guidance = guidance_of(world, guide, strength, pipe)
    with guidance.attached(pipe):
        pictures = draw(pipe, prompts, seeds, world.steps, callback_on_step_end=guidance)
    return np.stack([np.asarray(picture) for picture in pictures])


def guidance_of(world: World, guide: str, strength: float, pipe: FluxPipeline) -> DetectorGuidance:
    """Make the guidance by one of `GUIDES`."""
    detectors = [trained(world, name).artifact_map for name in GUIDES[guide]]
    settings = replace(settings_for(pipe), strength=strength)
    return DetectorGuidance(detectors, settings=settings, checkpoint_vae=False)
