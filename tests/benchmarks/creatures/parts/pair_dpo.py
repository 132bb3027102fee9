"""
Does a generator draw fewer artifacts once it prefers corrected pictures to its own?

The pairs are pictures with artifacts that the generator drew by itself, marked as people would, and what the
correction agent made of them with the generator itself. Beside it: pairs of clean renders and what `artiagent
synthesize` makes of them, each image with the noise that it inverts to, for which nobody has looked at a picture of
the generator. The LoRA is loaded into the stock pipeline, and its pictures are compared with those of `base`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from datasets_script.pairs.storage import read_pair_files
from tests.benchmarks.creatures.detectors import source_of
from tests.benchmarks.creatures.effects import JUDGES, SHOWN, WITNESSES, effect
from tests.benchmarks.creatures.loras import Settings, draw_with_lora, ending, train_lora
from tests.benchmarks.creatures.measures import judge_all
from tests.benchmarks.creatures.shares import Share, share
from tests.benchmarks.creatures.sheets import write_sheet
from tests.benchmarks.creatures.words import all_words
from tests.benchmarks.creatures.world import World


# The margin is larger than published, as are the errors of this generator. No value was tuned.
INJECTED: Settings = {
    "noise": "own",
    "mask_weight": 10,
    "margin": 0.05,
    "clean_weight": 1.0,
    "batch_size": 8,
    "max_steps": 400,
    "learning_rate": 2e-4,
    "lora_rank": 16,
    "guard_steps": 50,
    "save_steps": 50,
    "test_share": 0.1,
    "test_limit": 40,
}
CORRECTED: Settings = {**INJECTED, "noise": "random", "max_steps": 1000, "guard_steps": 100, "save_steps": 100}


def run(world: World) -> dict[str, Any]:
    """Train on the generator's own pictures and their corrections, draw and measure; judge the corrections."""
    clean = _judge_corrections(world)
    return {**_preferred(world, "pair_dpo", CORRECTED, "corrected", WITNESSES), "corrections_without_artifact": clean}


def run_injected(world: World) -> dict[str, Any]:
    """Train on the pairs that the detectors learn from, draw and measure."""
    return _preferred(world, "pair_dpo_injected", INJECTED, "injected", JUDGES)


def _judge_corrections(world: World) -> Share:
    """Count the corrections in which the oracle sees no artifact; write a sheet of the first, before and after."""
    pairs = list(read_pair_files([source_of(world, "corrected").removeprefix("pairs=")]))
    before, after = (np.stack([np.asarray(getattr(pair, side)) for pair in pairs]) for side in ("flawed", "clean"))
    by_prompt = {words.prompt: words for words in all_words()}
    words = [by_prompt[pair.caption] for pair in pairs]
    shown = words[:SHOWN]
    write_sheet(np.concatenate([before[:SHOWN], after[:SHOWN]]), shown * 2, world.work / "corrected.png", len(shown))
    return share([not verdict.has_artifact for verdict in judge_all(after, words)])


def _preferred(world: World, name: str, settings: Settings, data: str, judges: Sequence[str]) -> dict[str, Any]:
    pairs = source_of(world, data).removeprefix("pairs=")
    more = ("--num_inference_steps", world.steps, "--pairs", pairs)
    folder = train_lora(world, name, "pair_dpo", settings, *more)
    pictures = world.pictures(name, partial(draw_with_lora, folder, world.draw))
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    return {
        **effect(world, name, pictures, judges),
        "preference": record["data"]["preference"],
        "training": ending(folder),
        "settings": settings,
    }
