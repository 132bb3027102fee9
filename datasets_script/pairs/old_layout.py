"""Bring the shards of a run that was begun before a column was added, and continued since, to one layout."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from datasets.arrow_writer import ParquetWriter

from ..schema.features import DERIVED_COLUMNS, PAIR_FEATURES
from ..utils.files import replacing
from .storage import ROWS_AT_ONCE, read_rows


def upgrade_shards(out: Path) -> None:
    """
    Rewrite the shards that lack columns which others have, because `load_dataset` reads no folder of both. Images keep
    their bytes. A run whose shards are all alike is left as it is.

    Args:
        out (`Path`): Folder of a run that no process writes pairs to.
    """
    paths = sorted((out / "data").glob("*.parquet"))
    old = [path for path in paths if not set(DERIVED_COLUMNS) <= set(pq.read_schema(path).names)]
    if len(old) == len(paths):
        return
    for path in old:
        with replacing(path) as temporary:
            writer = ParquetWriter(features=PAIR_FEATURES, path=str(temporary), writer_batch_size=ROWS_AT_ONCE)
            for row in read_rows([str(path)]):
                writer.write(row)
            writer.finalize()
