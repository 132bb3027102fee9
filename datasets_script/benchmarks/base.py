"""Base class of benchmarks, and what reading them may yield instead of images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import ClassVar

from ..schema.image import BenchmarkImage
from ..utils.errors import UserError
from .upright import upright


@dataclass(frozen=True)
class Skipped:
    """Record of a benchmark that could not be read, with the reason."""

    id: str
    reason: str


class BenchmarkError(UserError, ValueError):
    """Raised if a source is missing or differs from the published layout; the message says what to fetch."""


class Benchmark(ABC):
    """
    Published benchmark, and the conversion of its files to [`BenchmarkImage`].

    Attributes:
        name (`str`): Name for `load_dataset(name)` and `artiagent evaluate --benchmark`.
        title (`str`): Name as its authors write it.
        homepage (`str`): Address where it is published.
        license (`str`): Licence of the data, an identifier of the Hub or words; `"unknown"` if it is not stated.
        citation (`str`): BibTeX entry.
        instructions (`str`): What to download from where, and the layout of the files in `source`.
        splits (`Mapping[str, int | None]`): Splits with their published numbers of images; `None` if not stated.
        hub_files (`tuple[str, ...]`): Patterns of the files to download if `source` may be a dataset on the Hub; empty
            if the published files must be unpacked or put together first.
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
        Read the records of a split in a fixed order. Records before `start` are skipped without decoding them, if the
        published format allows it.

        Args:
            source (`Path`): Folder with the published files.
            split (`str`): Name of the split, one of `splits`.
            start (`int`, *optional*, defaults to 0): Number of the first record to read.
            stop (`int`, *optional*): Number of the record to stop before; by default all are read.

        Returns:
            `Iterator[tuple[BenchmarkImage | Skipped, ...]]`: For each record at most one image, and the parts of it
            that could not be read.

        Raises:
            BenchmarkError: files are missing or differ from the published layout.
        """

    def read(
        self, source: Path, split: str, start: int = 0, stop: int | None = None
    ) -> Iterator[BenchmarkImage | Skipped]:
        """
        Read the images of a split, upright, and every record that could not be read.

        Args:
            source, split, start, stop: As in [`records`].
        """
        items = chain.from_iterable(self.records(source, split, start, stop))
        return (upright(item) if isinstance(item, BenchmarkImage) else item for item in items)

    def check(self, images: list[BenchmarkImage], split: str) -> list[str]:
        """
        Check images against the published counts.

        Args:
            images (`list[BenchmarkImage]`): All images of the split, without their pixels.
            split (`str`): Name of the split.

        Returns:
            `list[str]`: Contradictions, in words; empty by default.
        """
        return []
