"""The generator as it is, on held-out prompts and seeds."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.benchmarks.creatures.measures import figures_of
from tests.benchmarks.creatures.sheets import write_sheet
from tests.benchmarks.creatures.world import World


def run(world: World) -> dict[str, Any]:
    """Draw the pictures, write a sheet of them and measure them."""
    pictures = world.pictures("base")
    write_sheet(pictures, world.words, world.work / "base.png")
    return figures_of(pictures, world.words, np.stack([render.image for render in world.clean]))
