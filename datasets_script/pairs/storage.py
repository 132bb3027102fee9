"""Find, check and read the Parquet files of a dataset of pairs."""

from __future__ import annotations

import glob
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets.arrow_writer import ParquetWriter

from ..schema.features import DERIVED_COLUMNS, PAIR_FEATURES, current_row, pair_to_row, row_to_pair
from ..schema.pair import Pair
from ..schema.run_record import RUN_FILE, RunRecord
from ..utils.errors import UserError
from ..utils.seeds import derive_seed
from .named_images import columns_of, names_images, read_named_rows


# Rows hold three images each; they are read as they are grouped in the file.
ROWS_AT_ONCE = 16


def find_shards(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[str]:
    """
    Find the files of a source, in order, as absolute paths.

    Args:
        source (`str` or sequence of `str`): See [`PairsConfig`].

    Raises:
        UserError: there is none, or a folder holds no completed run.
    """
    sources = [source] if isinstance(source, str | os.PathLike) else list(source)
    if not sources:
        raise UserError("source must name a folder written by `artiagent synthesize`, got none")
    return [os.path.abspath(path) for item in sources for path in _shards_of(os.fspath(item))]


def _shards_of(source: str) -> list[str]:
    if not os.path.isdir(source):
        files = sorted(glob.glob(source))
        if not files:
            raise UserError(f"source '{source}' is neither a folder nor a pattern that any file fits")
        return files
    if not (Path(source) / RUN_FILE).exists():
        raise UserError(f"source '{source}' holds no run.json: it is no folder written by `artiagent synthesize`")
    if not RunRecord.read(Path(source)).is_complete:
        raise UserError(
            f"source '{source}' holds a run that is not complete: the command that began it continues it. To read "
            f"what there is so far, give '{os.path.join(source, 'data', '*.parquet')}'"
        )
    files = sorted(glob.glob(os.path.join(glob.escape(source), "data", "*.parquet")))
    if not files:
        # What `artiagent prepare --out` has written holds the record of the run too.
        raise UserError(
            f"source '{source}' holds no data/*.parquet: it is no folder written by `artiagent synthesize`"
        )
    return files


def check_shards(files: Sequence[str]) -> None:
    """
    Raises:
        UserError: a file is damaged or holds no pairs, or two pairs have one id.
    """
    first: dict[str, str] = {}
    for path in files:
        names = _read_names(path)
        missing = [name for name in PAIR_FEATURES if name not in (*names, *DERIVED_COLUMNS)]
        if missing:
            raise UserError(f"'{path}' holds no pairs: it has no column {', '.join(missing)}")
        for pair_id in pq.read_table(path, columns=["pair_id"])["pair_id"].to_pylist():
            if pair_id in first:
                raise UserError(f"pair ids must be unique, but '{pair_id}' is in '{first[pair_id]}' and in '{path}'")
            first[pair_id] = path


def _read_names(path: str) -> list[str]:
    try:
        return columns_of(pq.read_schema(path).names)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"'{path}' is no whole Parquet file: {error}") from error


def read_rows(files: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Read rows of `PAIR_FEATURES` as stored, images as `{"bytes", "path"}`; see [`current_row`] for old files."""
    for path in files:
        with pq.ParquetFile(path) as file:
            if names_images(file.schema_arrow):
                yield from map(current_row, read_named_rows(path, PAIR_FEATURES))
                continue
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=list(PAIR_FEATURES)):
                yield from map(current_row, batch.to_pylist())


def split_of(source_id: str, test_share: float, seed: int = 0) -> str:
    """`"test"` for about `test_share` of the photos and `"train"` for the others, by a hash of name and seed."""
    return "test" if derive_seed(seed, f"split:{source_id}") < test_share * 2**63 else "train"


class PairWriter:
    """
    Writes a Parquet file of pairs. Images are encoded in another thread, while the next photo is worked on.

    Args:
        path (`Path`): The file.
    """

    def __init__(self, path: Path) -> None:
        self._writer = ParquetWriter(features=PAIR_FEATURES, path=str(path), writer_batch_size=ROWS_AT_ONCE)
        self._encoder = ThreadPoolExecutor(1)
        self._rows: deque[Future[dict[str, Any]]] = deque()

    def write(self, pair: Pair) -> None:
        self._rows.append(self._encoder.submit(pair_to_row, pair))
        self._flush(ROWS_AT_ONCE)

    def __enter__(self) -> PairWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        """Completes the file, unless the block has failed."""
        try:
            if kind is None:
                self._flush(0)
                self._writer.finalize()
        finally:
            self._encoder.shutdown(cancel_futures=True)

    def _flush(self, waiting: int) -> None:
        while len(self._rows) > waiting:
            self._writer.write(self._rows.popleft().result())


def read_pairs(out: Path) -> Iterator[Pair]:
    """The pairs of a dataset written by a run."""
    for row in read_rows([str(path) for path in sorted((out / "data").glob("*.parquet"))]):
        yield row_to_pair(PAIR_FEATURES.decode_example(row))
