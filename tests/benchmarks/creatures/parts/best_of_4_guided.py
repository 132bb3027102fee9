"""
Search and guidance together: of a few guided pictures, the one in which a detector sees the fewest artifacts.

Guidance costs as much as several candidates. So the same number of unguided candidates stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from diffusers import FluxPipeline

from tests.benchmarks.creatures.detectors import scores_of, trained
from tests.benchmarks.creatures.effects import WITNESSES, effect
from tests.benchmarks.creatures.parts import guided
from tests.benchmarks.creatures.parts.best_of_32 import draw_each
from tests.benchmarks.creatures.world import World


# Guides and chooses.
GUIDE = "many_labelled"
BEST_OF = 4
CANDIDATES = 2 * BEST_OF - 1


def run(world: World) -> dict[str, Any]:
    """Draw guided and unguided candidates, and choose among each."""
    strength = guided.best_strength(guided.tuning_curve(world, GUIDE))
    together = world.pictures("candidates_guided", partial(draw_all, world, strength))
    alone = world.pictures("candidates_alone", partial(draw_each, world, CANDIDATES))
    return {
        **effect(world, "best_of_4_guided", _best(world, together), WITNESSES),
        "scorer": GUIDE,
        "guide": GUIDE,
        "strength": strength,
        "candidates": CANDIDATES,
        "unguided": effect(world, "best_of_4", _best(world, alone), WITNESSES),
    }


def draw_all(
    world: World, strength: float, pipe: FluxPipeline, prompts: Sequence[str], seeds: Sequence[int]
) -> np.ndarray:
    """Draw guided candidates of some prompts, of shape `(prompts, candidates, 64, 64, 3)`, `uint8`."""
    guidance = guided.guidance_of(world, GUIDE, strength, pipe)
    with guidance.attached(pipe):
        return draw_each(world, CANDIDATES, pipe, prompts, seeds, callback_on_step_end=guidance)


def _best(world: World, candidates: np.ndarray) -> np.ndarray:
    """Return the candidate of each prompt that the scorer prefers."""
    number, each = candidates.shape[:2]
    scores = scores_of(trained(world, GUIDE), candidates.reshape(number * each, *candidates.shape[2:]))
    return candidates[np.arange(number), scores.reshape(number, each).argmin(1)]
