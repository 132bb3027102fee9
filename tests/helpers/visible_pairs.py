"""Runs whose artifacts can be seen by the smallest network: the masks of artifact images have another colour."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from datasets_script.schema.pair import Pair
from tests.helpers.made_pairs import HEIGHT, WIDTH, make_pair, write_run


CELLS = (4, 6)
FLAW = (255, 0, 255)


def visible_pair(index: int, tool: str = "") -> Pair:
    """Make a pair of muted colours, with vivid masks in the artifact image; `tool` replaces that of the artifacts."""
    pair = make_pair(index)
    colors = np.random.default_rng(index).integers(80, 176, (*CELLS, 3), dtype=np.uint8)
    clean = Image.fromarray(colors).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)
    flawed = np.array(clean)
    for artifact in pair.artifacts:
        flawed[artifact.mask] = FLAW
    artifacts = tuple(replace(artifact, tool=tool or artifact.tool) for artifact in pair.artifacts)
    return replace(pair, source=clean, clean=clean, flawed=Image.fromarray(flawed), artifacts=artifacts)


def visible_pairs(count: int, start: int = 0, tool: str = "") -> Iterator[Pair]:
    """Yield pairs of as many photos."""
    yield from (visible_pair(index, tool) for index in range(start, start + count))


def write_visible_run(folder: Path, count: int, start: int = 0, tool: str = "") -> Path:
    """Write a run of such pairs."""
    return write_run(folder, list(visible_pairs(count, start, tool)), shards=2)
