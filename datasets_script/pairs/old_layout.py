"""Migration of shards that lack columns of the current layout."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from datasets.arrow_writer import ParquetWriter

from ..schema.features import PAIR_FEATURES
from ..utils.files import replacing
from .storage import ROWS_AT_ONCE, read_rows


def upgrade_shards(out: Path) -> None:
    """
    Rewrite shards that lack columns, or fields of artifacts, which others of the run have: `load_dataset` cannot read
    a folder of both. Runs end up so when they are begun with one version and continued with a newer one. Images keep
    their bytes, and a run whose shards all have the same columns is left unchanged.

    Args:
        out (`Path`): Folder of a run that no process is writing to.
    """
    columns = {path: _columns(path) for path in sorted((out / "data").glob("*.parquet"))}
    newest = frozenset().union(*columns.values())
    if len(set(columns.values())) == 1:
        return
    for path in (path for path, own in columns.items() if own != newest):
        with replacing(path) as temporary:
            writer = ParquetWriter(features=PAIR_FEATURES, path=str(temporary), writer_batch_size=ROWS_AT_ONCE)
            for row in read_rows([str(path)]):
                writer.write(row)
            writer.finalize()


def _columns(path: Path) -> frozenset[str]:
    """Return the names of a file's columns and of the fields of its artifacts."""
    schema = pq.read_schema(path)
    return frozenset((*schema.names, *(field.name for field in schema.field("artifacts").type.value_type)))
