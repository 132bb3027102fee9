"""What a method does to the pictures of `base`, by the oracle, and by detectors beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.benchmarks.creatures.detectors import scores_of, trained
from tests.benchmarks.creatures.measures import changes, compared, figures_of, judge_all
from tests.benchmarks.creatures.sheets import write_sheet
from tests.benchmarks.creatures.world import World


# Pictures beside each other in a sheet.
SHOWN = 8
# Detectors whose frequency of artifacts stands beside the oracle's.
JUDGES = ("mixture", "injected", "corrupted", "balanced", "oracle", "hackable")
# The same for what learned from many labels.
WITNESSES = ("many_labelled", "witness")


def effect(world: World, name: str, pictures: np.ndarray, judges: Sequence[str] = JUDGES) -> dict[str, Any]:
    """
    Compare pictures with those of `base` that were drawn of the same prompts and seeds, and write a sheet of both.

    Args:
        world (`World`): Settings of the run.
        name (`str`): Name of the method, and of the sheet.
        pictures (`np.ndarray` of shape `(number, 64, 64, 3)`, `uint8`): Its pictures.
        judges (`Sequence[str]`, *optional*): See [`measured`].

    Returns:
        `dict[str, Any]`: See there.
    """
    before = world.pictures("base")
    flawed = [verdict.has_artifact for verdict in judge_all(before, world.words)]
    _write_both(world, name, before, pictures, flawed)
    return measured(world, pictures, judges)


def measured(world: World, pictures: np.ndarray, judges: Sequence[str] = JUDGES) -> dict[str, Any]:
    """
    Compare pictures with those of `base` that were drawn of the same prompts and seeds.

    Args:
        world (`World`): Settings of the run.
        pictures (`np.ndarray` of shape `(number, 64, 64, 3)`, `uint8`): The pictures.
        judges (`Sequence[str]`, *optional*): Detectors whose frequencies are told; by default `JUDGES`.

    Returns:
        `dict[str, Any]`: The figures of [`measures.figures_of`], [`measures.compared`] and [`measures.changes`], and
        `frequency` of `before` and `after`, by each judge.
    """
    before = world.pictures("base")
    verdicts, verdicts_after = (judge_all(those, world.words) for those in (before, pictures))
    return {
        **figures_of(pictures, world.words, np.stack([render.image for render in world.clean])),
        **compared(verdicts, verdicts_after),
        **changes(before, pictures, world.words),
        "frequency": {
            judge: dict(zip(("before", "after"), _frequencies(world, judge, before, pictures), strict=True))
            for judge in judges
        },
    }


def _frequencies(world: World, judge: str, *sets: np.ndarray) -> list[float]:
    detector = trained(world, judge)
    return [round(float((scores_of(detector, pictures) > 0.5).mean()), 4) for pictures in sets]


def _write_both(world: World, name: str, before: np.ndarray, after: np.ndarray, flawed: Sequence[bool]) -> None:
    """Write the first pictures that had an artifact, and below what became of them."""
    first = np.flatnonzero(flawed)[: 2 * SHOWN]
    rows = [rows for start in range(0, len(first), SHOWN) for rows in _two_rows(first[start : start + SHOWN])]
    pictures = np.stack([(before, after)[of_after][index] for of_after, index in rows]) if rows else before[:0]
    write_sheet(pictures, [world.words[index] for _, index in rows], world.work / f"{name}.png", SHOWN)


def _two_rows(indices: np.ndarray) -> list[tuple[bool, int]]:
    return [(of_after, int(index)) for of_after in (False, True) for index in indices]
