"""
Best of 32: of ever more noises for a prompt, the picture in which a detector sees the fewest artifacts.

All candidates are drawn once, the first from the seed of `base`. The same search is made by the detector that learned
from labelled pictures of the generator, by the one that learned from all synthetic data, and by one that is known to
be hackable; and by the oracle itself, which says how far any scorer could get.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from diffusers import FluxPipeline

from diffusers_artifact.best_of_n import Draw, candidate_seed, draw_candidates
from tests.benchmarks.creatures.detectors import scores_of, trained
from tests.benchmarks.creatures.effects import effect
from tests.benchmarks.creatures.generator import CALL
from tests.benchmarks.creatures.measures import judge_all
from tests.benchmarks.creatures.shares import share
from tests.benchmarks.creatures.world import World


BEST_OF = 32
SCORER, OTHERS = "oracle", ("mixture", "hackable")


def run(world: World) -> dict[str, Any]:
    """Draw the candidates, and let each scorer choose."""
    candidates = world.pictures("candidates", partial(draw_all, world))
    clean = _clean(world, candidates)
    blocks = {name: _search(world, name, candidates, clean) for name in (SCORER, *OTHERS)}
    return {
        **blocks[SCORER],
        "scorer": SCORER,
        "candidates": candidates.shape[1],
        "with_a_clean_candidate": share([bool(those.any()) for those in clean]),
        "other_scorers": {name: blocks[name] for name in OTHERS},
    }


def draw_all(world: World, pipe: FluxPipeline, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
    """Draw all candidates of some prompts, of shape `(prompts, candidates, 64, 64, 3)`, `uint8`."""
    return draw_each(world, 2 * BEST_OF - 1, pipe, prompts, seeds)


def draw_each(
    world: World, each: int, pipe: FluxPipeline, prompts: Sequence[str], seeds: Sequence[int], **options: Any
) -> np.ndarray:
    """
    Draw some candidates of each prompt, the first from its seed.

    Args:
        world (`World`): Settings of the run.
        each (`int`): Candidates of a prompt.
        pipe (`FluxPipeline`): Pipeline of the generator.
        prompts (`Sequence[str]`): Prompts.
        seeds (`Sequence[int]`): A seed for each.
        options: Further arguments of each call.

    Returns:
        `np.ndarray` of shape `(prompts, each, 64, 64, 3)`, `uint8`.
    """
    draws = [
        Draw(str(seed), prompt, number, candidate_seed(world.seed, str(seed), number) if number else seed)
        for prompt, seed in zip(prompts, seeds, strict=True)
        for number in range(each)
    ]
    batches = draw_candidates(pipe, draws, batch_size=32, num_inference_steps=world.steps, **CALL, **options)
    pictures = np.stack([np.asarray(candidate.image) for batch in batches for candidate in batch])
    return pictures.reshape(len(prompts), -1, *pictures.shape[1:])


def _clean(world: World, candidates: np.ndarray) -> np.ndarray:
    """Return for each candidate whether the oracle finds no artifact, of shape `(number, candidates)`."""
    verdicts = [judge_all(those, [words] * len(those)) for those, words in zip(candidates, world.words, strict=True)]
    return np.array([[not verdict.has_artifact for verdict in those] for those in verdicts])


def _search(world: World, name: str, candidates: np.ndarray, clean: np.ndarray) -> dict[str, Any]:
    number, each = candidates.shape[:2]
    flat = candidates.reshape(number * each, *candidates.shape[2:])
    scores = scores_of(trained(world, name), flat).reshape(number, each)
    # The number of candidates after each round.
    chosen = {2**rounds - 1: scores[:, : 2**rounds - 1].argmin(1) for rounds in range(1, BEST_OF.bit_length() + 1)}
    best = candidates[np.arange(number), chosen[each]]
    return {
        **effect(world, f"best_of_32_{name}", best),
        "curve": {count: share((~clean[np.arange(number), which]).tolist()) for count, which in chosen.items()},
    }
