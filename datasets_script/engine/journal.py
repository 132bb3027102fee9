"""
Journal of an unfinished shard: what its photos have become so far, so that a killed run does not make them again.

It is a file that only grows, and goes when the shard is finished. A record is a line of JSON and the photo's rows as
an Arrow stream. The last one may be torn if its process was killed; it is then cut off.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from ..schema.features import PAIR_FEATURES


@dataclass(frozen=True)
class _Place:
    """Where the rows of a photo are in the journal, and the bytes that they must have."""

    start: int
    length: int


class Journal:
    """
    Journal of one shard, a context manager. Opening it reads what is there.

    Args:
        path (`Path`): The file; made with the first record.

    Attributes:
        records (`dict[str, dict]`): What was recorded of each finished photo besides its rows, by source id.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, dict[str, Any]] = {}
        self._places: dict[str, _Place] = {}
        self._file: BufferedWriter | None = None
        if not path.exists():
            return
        end = 0
        with path.open("r+b") as file:
            for header, place in _whole_records(file):
                self.records[header["source_id"]] = header["record"]
                self._places[header["source_id"]] = place
                end = place.start + place.length
            file.truncate(end)

    def append(self, source_id: str, record: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        """
        Add a finished photo.

        Args:
            source_id (`str`): The photo.
            record (`dict`): What to keep besides its rows, JSON-serialisable.
            rows (`list[dict]`): Its rows of `PAIR_FEATURES` as stored.
        """
        content = _to_bytes(rows) if rows else b""
        header = {"source_id": source_id, "bytes": len(content), "crc32": zlib.crc32(content), "record": record}
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
        self._file.write(json.dumps(header, ensure_ascii=False).encode() + b"\n" + content)
        self._file.flush()

    def rows(self, source_id: str) -> list[dict[str, Any]]:
        """Read the rows of a photo that was recorded before the journal was opened."""
        place = self._places[source_id]
        with self.path.open("rb") as file:
            file.seek(place.start)
            content = file.read(place.length)
        return pa.ipc.open_stream(content).read_all().to_pylist() if content else []

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _whole_records(file: BinaryIO) -> Iterator[tuple[dict[str, Any], _Place]]:
    with suppress(ValueError):  # half a line
        while line := file.readline():
            header, start = json.loads(line), file.tell()
            content = file.read(header["bytes"])
            if len(content) < header["bytes"] or zlib.crc32(content) != header["crc32"]:
                return
            yield header, _Place(start, len(content))


def _to_bytes(rows: list[dict[str, Any]]) -> bytes:
    table = pa.Table.from_pylist(rows, schema=PAIR_FEATURES.arrow_schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
