"""Parquet files of a dataset of pairs: find, check, read and write them."""

from __future__ import annotations

import glob
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets.arrow_writer import ParquetWriter

from ..edits.pair_rows import PairEdits, with_edits
from ..schema.features import DERIVED_COLUMNS, PAIR_FEATURES, current_row, pair_to_row, row_to_pair
from ..schema.pair import Pair
from ..schema.run_record import RUN_FILE, RunRecord
from ..utils.errors import UserError
from ..utils.seeds import derive_seed
from .filters import EVERY_PAIR, PairFilter
from .named_images import columns_of, names_images, read_named_rows


# Each row holds three images, so only few are in memory at once. Also the size of the row groups that are written.
ROWS_AT_ONCE = 16

Rows = list[dict[str, Any]]
"""Rows of `PAIR_FEATURES` as stored, with images as `{"bytes", "path"}`."""


def find_shards(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[str]:
    """
    Find the Parquet files of a source.

    Args:
        source (`str` or sequence of `str`): As in [`PairsConfig`].

    Returns:
        `list[str]`: Absolute paths, in order.

    Raises:
        UserError: there are no files, or a folder does not hold a completed run.
    """
    sources = [source] if isinstance(source, str | os.PathLike) else list(source)
    if not sources:
        raise UserError("`source` must be a folder written by `artiagent synthesize`, got none")
    return [os.path.abspath(path) for item in sources for path in _shards_of(os.fspath(item))]


def _shards_of(source: str) -> list[str]:
    if not os.path.isdir(source):
        files = sorted(glob.glob(source))
        if not files:
            raise UserError(
                f"`source` must be a folder or a pattern of files, got '{source}', which is neither a folder nor "
                "matches any file"
            )
        return files
    if not (Path(source) / RUN_FILE).exists():
        raise UserError(
            f"`source` must be a folder written by `artiagent synthesize`, got '{source}', which holds no {RUN_FILE}"
        )
    if not RunRecord.read(Path(source)).is_complete:
        raise UserError(
            f"`source` must hold a completed run, got '{source}', whose run is not complete; continue it with the "
            f"command that began it, or give '{os.path.join(source, 'data', '*.parquet')}' to read what it has written"
        )
    files = sorted(glob.glob(os.path.join(glob.escape(source), "data", "*.parquet")))
    if not files:
        # Folders written by `artiagent prepare --out` hold the record of the run too.
        raise UserError(
            f"`source` must be a folder written by `artiagent synthesize`, got '{source}', which holds no "
            "data/*.parquet"
        )
    return files


def check_shards(files: Sequence[str]) -> None:
    """
    Check that files hold pairs with unique ids.

    Args:
        files (`Sequence[str]`): Paths of Parquet files.

    Raises:
        UserError: a file is damaged, lacks columns of pairs, or repeats the id of a pair.
    """
    first: dict[str, str] = {}
    for path in files:
        names = _read_names(path)
        missing = [name for name in PAIR_FEATURES if name not in (*names, *DERIVED_COLUMNS)]
        if missing:
            raise UserError(f"files must hold pairs, got '{path}' with no pairs: it lacks {', '.join(missing)}")
        for pair_id in pq.read_table(path, columns=["pair_id"])["pair_id"].to_pylist():
            if pair_id in first:
                raise UserError(f"pair ids must be unique, but '{pair_id}' is in '{first[pair_id]}' and in '{path}'")
            first[pair_id] = path


def _read_names(path: str) -> list[str]:
    try:
        return columns_of(pq.read_schema(path).names)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"'{path}' is not a complete Parquet file: {error}. The other files are as they were; restore a "
            "copy of it, or remove it and its record in shards/ and repeat the command that began the run, which "
            "makes it again"
        ) from error


def read_rows(
    files: Sequence[str], only: PairFilter = EVERY_PAIR, edits: PairEdits | None = None
) -> Iterator[dict[str, Any]]:
    """
    Read rows of `PAIR_FEATURES` as stored, with images as `{"bytes", "path"}`.

    Args:
        files (`Sequence[str]`): Paths of Parquet files; rows of older versions are completed by [`current_row`].
        only (`PairFilter`, *optional*): Choice of the rows, as they are after the edits; by default all.
        edits (`Mapping[str, SampleEdits]`, *optional*): Edits by pair, see [`~datasets_script.pairs.edited`].
    """
    for path in files:
        yield from filter(only, with_edits(_stored_rows(path), edits or {}))


def _stored_rows(path: str) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        if names_images(file.schema_arrow):
            yield from map(current_row, read_named_rows(path, PAIR_FEATURES))
            return
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=list(PAIR_FEATURES)):
            yield from map(current_row, batch.to_pylist())


def split_of(source_id: str, test_share: float, seed: int = 0) -> str:
    """
    Choose the split of a photo by a hash of its name and the seed.

    Args:
        source_id (`str`): Id of the photo.
        test_share (`float`): Approximate share of the photos that go to the test split, in [0, 1).
        seed (`int`, *optional*, defaults to 0): Seed of the choice.

    Returns:
        `str`: `"test"` or `"train"`.
    """
    return "test" if derive_seed(seed, f"split:{source_id}") < test_share * 2**63 else "train"


class PairWriter:
    """
    Writer of a Parquet file of pairs, a context manager. Images are encoded in another thread, so that the caller can
    work on the next photo meanwhile.

    Args:
        path (`Path`): The file to write.
    """

    def __init__(self, path: Path) -> None:
        self._writer = ParquetWriter(features=PAIR_FEATURES, path=str(path), writer_batch_size=ROWS_AT_ONCE)
        self._encoder = ThreadPoolExecutor(1)
        self._rows: deque[Future[Rows]] = deque()

    def write(self, pairs: Iterable[Pair], encoded: Callable[[Rows], None] | None = None) -> None:
        """
        Add pairs to the file.

        Args:
            pairs (`Iterable[Pair]`): The pairs.
            encoded (`Callable`, *optional*): Function that gets their rows once they are encoded, in the other thread,
                also when the block fails meanwhile.
        """
        self._submit(lambda: _encode(pairs, encoded))

    def write_rows(self, rows: Rows) -> None:
        """Add pairs that are rows of `PAIR_FEATURES` as stored already."""
        self._submit(lambda: rows)

    def __enter__(self) -> PairWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        """Complete the file, unless the block has failed."""
        try:
            if kind is None:
                self._flush(0)
                self._writer.finalize()
        finally:
            self._encoder.shutdown()

    def _submit(self, encode: Callable[[], Rows]) -> None:
        self._rows.append(self._encoder.submit(encode))
        self._flush(ROWS_AT_ONCE)

    def _flush(self, waiting: int) -> None:
        while len(self._rows) > waiting:
            for row in self._rows.popleft().result():
                self._writer.write(row)


def _encode(pairs: Iterable[Pair], encoded: Callable[[Rows], None] | None) -> Rows:
    rows = [pair_to_row(pair) for pair in pairs]
    if encoded is not None:
        encoded(rows)
    return rows


def read_source_ids(out: Path) -> set[str]:
    """Return the photos of which the folder of a run holds pairs."""
    paths = sorted((out / "data").glob("*.parquet"))
    return {name for path in paths for name in pq.read_table(path, columns=["source_id"])["source_id"].to_pylist()}


def read_pairs(out: Path, only: PairFilter = EVERY_PAIR) -> Iterator[Pair]:
    """Read the pairs that a run has written to the folder `out`, or some of them."""
    yield from read_pair_files([str(path) for path in sorted((out / "data").glob("*.parquet"))], only)


def read_pair_files(files: Sequence[str], only: PairFilter = EVERY_PAIR) -> Iterator[Pair]:
    """Read the pairs of Parquet files, or some of them; see [`read_rows`]."""
    for row in read_rows(files, only):
        yield row_to_pair(PAIR_FEATURES.decode_example(row))
