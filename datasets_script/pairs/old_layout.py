"""Migration of shards that lack columns of the current layout."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from datasets.arrow_writer import ParquetWriter

from ..schema.features import DERIVED_COLUMNS, PAIR_FEATURES
from ..utils.files import replacing
from .storage import ROWS_AT_ONCE, read_rows


def upgrade_shards(out: Path) -> None:
    """
    Rewrite shards that lack columns which others of the run have: `load_dataset` cannot read a folder of both. Runs
    end up so when they are begun with one version and continued with a newer one. Images keep their bytes, and a run
    whose shards all have the same columns is left unchanged.

    Args:
        out (`Path`): Folder of a run that no process is writing to.
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
