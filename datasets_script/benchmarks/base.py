"""The one schema that every benchmark is read into, and what a benchmark has to tell of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
        hub_files (`tuple[str, ...]`): Patterns of the files to fetch where `source` may be a data set on the Hub; none
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
    def read(self, source: Path, split: str) -> Iterator[BenchmarkImage | Skipped]:
        """
        The images of a split in a fixed order, and every record that could not be read.

        Args:
            source (`Path`): A folder with the published files.
            split (`str`): One of `splits`.

        Raises:
            BenchmarkError: files are missing or are not laid out as published.
        """

    def check(self, images: list[BenchmarkImage], split: str) -> list[str]:
        """What of the publication's own counts the images contradict, in words; nothing by default."""
        return []
