"""
The failures that papers warn of, one thing at a time changed from what is recommended: a detector that never saw a
clean image, the loss of all pixels, no regularisation with real images, and rewards without a divergence from the
model before.

Each LoRA is trained twice with a learning rate that is far too high. Without guards, to its end, which shows where it
goes; and with the guards as they are by default, which shows where they end it and what they keep. What is recommended
is trained at the same rate beside them: what happens to it too is the fault of the rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.creatures.detectors import trained
from tests.benchmarks.creatures.effects import SHOWN, measured
from tests.benchmarks.creatures.loras import (
    Settings,
    draw_with_lora,
    drawn_and_guarded,
    ending,
    train_lora,
)
from tests.benchmarks.creatures.parts import ddpo, treated
from tests.benchmarks.creatures.parts.guided import GUIDE, GUIDES, HACKABLE
from tests.benchmarks.creatures.sheets import write_sheet
from tests.benchmarks.creatures.world import World
from training.denoiser.guards import BANDS


PICTURES = 100
# A guard that learned from synthetic artifacts.
GUARD = "mixture"
# Shorter than the recommended trainings, of smaller batches, read more often, and faster than anyone should.
_SHORT: Settings = {"held_out": 16, "guard_images": 32, "guard_steps": 5, "save_steps": 20}


def _without_bands(settings: Settings) -> Settings:
    """Leave the bands as they are by default."""
    return {name: value for name, value in settings.items() if name != "guard_bands"}


TREATING: Settings = {
    **_without_bands(treated.TRAINING),
    **_SHORT,
    "learning_rate": 1e-2,
    "max_steps": 60,
    "batch_size": 4,
    "real_batch_size": 4,
}
REWARDED: Settings = {
    **_without_bands(ddpo.TRAINING),
    **_SHORT,
    "learning_rate": 5e-3,
    "max_steps": 30,
    "num_inference_steps": 8,
    "noisy_steps": "0 1 2 3",
    "prompts_per_step": 2,
    "group_size": 12,
    "batch_size": 24,
    # Flow-GRPO takes 0.04, and lower rates.
    "kl_weight": 0.2,
}
# To the end, whatever the guards read, which they need not do so often.
UNGUARDED: Settings = {"guard_bands": " ".join(f"{name}=:" for name in BANDS), "guard_steps": 20, "keep": "last"}


@dataclass(frozen=True)
class Trial:
    """
    A training.

    Args:
        script (`str`): `"treat_lora"` or `"ddpo"`.
        settings (`Mapping`): What is recommended.
        changed (`Mapping`, *optional*): The one thing that is not.
        detectors (`tuple[str, ...]`, *optional*): What is trained against; by default the detectors that guide.
    """

    script: str
    settings: Settings
    changed: Settings = field(default_factory=dict)
    detectors: tuple[str, ...] = GUIDES[GUIDE]


FAILURES: Mapping[str, Trial] = {
    "naive_detector": Trial("treat_lora", TREATING, detectors=GUIDES[HACKABLE]),
    "all_pixels": Trial("treat_lora", TREATING, {"pixels": "all"}),
    "no_regularisation": Trial("treat_lora", TREATING, {"gamma": 0}),
    "no_kl": Trial("ddpo", REWARDED, {"kl_weight": 0}),
}
# As recommended, but for the rate and the length.
RECOMMENDED: Mapping[str, Trial] = {
    "recommended_treating": Trial("treat_lora", TREATING),
    "recommended_ddpo": Trial("ddpo", REWARDED),
}


def run(world: World) -> dict[str, Any]:
    """Train each without and with guards, draw, measure, and write a sheet of each."""
    trials = {**FAILURES, **RECOMMENDED}
    for name in dict.fromkeys([GUARD, *(name for trial in trials.values() for name in trial.detectors)]):
        trained(world, name)
    # The first pictures of `base`.
    few = replace(world, number=min(PICTURES, world.number))
    return {
        "pictures": few.number,
        "settings": {"treat_lora": TREATING, "ddpo": REWARDED, "unguarded": UNGUARDED},
        **{name: _both(few, name, trial) for name, trial in trials.items()},
    }


def _both(world: World, name: str, trial: Trial) -> dict[str, Any]:
    found: dict[str, Any] = {"trained_against": trial.detectors, "changed": trial.changed}
    rows = [world.pictures("base")]
    for guards, more in {"unguarded": UNGUARDED, "guarded": {}}.items():
        title = f"failures/{name}_{guards}"
        folder = _lora_of(world, title, trial, more)
        pictures = world.pictures(title, partial(draw_with_lora, folder, world.draw))
        judges = dict.fromkeys((*trial.detectors, GUARD))
        found[guards] = {"training": ending(folder), **measured(world, pictures, tuple(judges))}
        rows.append(pictures)
    # Below each picture of `base` what it would have become, and what the guards kept.
    shown = np.concatenate([pictures[:SHOWN] for pictures in rows])
    words = world.words[:SHOWN]
    write_sheet(shown, words * len(rows), world.work / "failures" / f"{name}.png", len(words))
    return found


def _lora_of(world: World, title: str, trial: Trial, more: Settings) -> Path:
    folders = [world.work / "detectors" / name for name in trial.detectors]
    against: list[str | Path | int] = (
        ["--num_inference_steps", world.steps, "--detector", *folders]
        if trial.script == "treat_lora"
        else ["--rewards", *(f"detector={folder}" for folder in folders)]
    )
    settings = {**trial.settings, **trial.changed, **more}
    return train_lora(world, title, trial.script, settings, *drawn_and_guarded(world, GUARD), *against)
