"""The one schema that every benchmark is read into, and what a benchmark has to tell of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import ClassVar

from ..schema.image import BenchmarkImage
from ..utils.errors import UserError


@dataclass(frozen=True)
class Skipped:
    """A record of a benchmark that could not be read, and why."""

    id: str
    reason: str


class BenchmarkError(UserError, ValueError):
    """A source is missing or is not laid out as published; the message says what to fetch, or what differs."""


class Benchmark(ABC):
    """
    A published benchmark and the way from its files to [`BenchmarkImage`]. One file each.

    Attributes:
        name (`str`): As in `load_dataset(name)` and `artiagent evaluate --benchmark`.
        title (`str`): As its authors write it.
        homepage (`str`): Where it is published.
        license (`str`): Of the data, an identifier of the Hub or words; `"unknown"` if it is not stated.
        citation (`str`): BibTeX.
        instructions (`str`): What to fetch from where, and how its files must lie in `source`.
        splits (`Mapping[str, int | None]`): The splits, and how many images the publication says each has.
        hub_files (`tuple[str, ...]`): Patterns of the files to fetch where `source` may be a dataset on the Hub; none
            where what is published must be unpacked or put together first.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    homepage: ClassVar[str]
    license: ClassVar[str]
    citation: ClassVar[str]
    instructions: ClassVar[str]
    splits: ClassVar[Mapping[str, int | None]]
    hub_files: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def records(
        self, source: Path, split: str, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[BenchmarkImage | Skipped, ...]]:
        """
        Read the records of a split in a fixed order. What lies before `start` is passed over without decoding it,
        where the published format allows that.

        Args:
            source (`Path`): A folder with the published files.
            split (`str`): One of `splits`.
            start (`int`, *optional*, defaults to 0): The first record to read.
            stop (`int`, *optional*): The record to stop before; all that follow are read without it.

        Returns:
            `Iterator[tuple[BenchmarkImage | Skipped, ...]]`: For each record at most one image, and what of it could
            not be read.

        Raises:
            BenchmarkError: files are missing or are not laid out as published.
        """

    def read(
        self, source: Path, split: str, start: int = 0, stop: int | None = None
    ) -> Iterator[BenchmarkImage | Skipped]:
        """Read the images of a split and every record that could not be read; arguments as in [`records`]."""
        return chain.from_iterable(self.records(source, split, start, stop))

    def check(self, images: list[BenchmarkImage], split: str) -> list[str]:
        """What of the publication's own counts the images contradict, in words; nothing by default."""
        return []
