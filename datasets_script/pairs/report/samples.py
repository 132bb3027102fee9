"""Sample pairs for the page of a report."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq

from diffusers_artifact.mapping import ARTIFACT_TYPES

from ...schema.features import PAIR_FEATURES, current_row, row_to_pair
from ...schema.pair import Pair
from .columns import PairFacts
from .statistics import SEED, Statistics


def sample_pairs(out: Path, statistics: Statistics, of_each_type: int = 2) -> list[Pair]:
    """
    Draw pairs at random, up to `of_each_type` with each type of artifact.

    Args:
        out (`Path`): Folder of the dataset that `statistics` describes.
        statistics (`Statistics`): Statistics whose sample to draw from.
        of_each_type (`int`, *optional*, defaults to 2): Number of pairs per type.

    Returns:
        `list[Pair]`: Distinct pairs, ordered by type.
    """
    shuffled = random.Random(SEED).sample(statistics.sample, len(statistics.sample))
    chosen: list[PairFacts] = []
    for kind in ARTIFACT_TYPES:
        fitting = (pair for pair in shuffled if pair not in chosen and any(a.type == kind for a in pair.artifacts))
        chosen.extend(list(islice(fitting, of_each_type)))
    return [_read_pair(out, *pair.place) for pair in chosen]


def _read_pair(out: Path, name: str, number: int) -> Pair:
    rows = pq.ParquetFile(out / "data" / name).iter_batches(batch_size=1)
    batch = next(islice(rows, number, None))
    return row_to_pair(PAIR_FEATURES.decode_example(current_row(batch.to_pylist()[0])))
