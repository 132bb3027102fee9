"""The kinds of sources by name. Each is a module with `find_files(spec)` and `read_units(spec, files)`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import datasets

from datasets_script.utils.errors import UserError
from datasets_script.utils.seeds import derive_seed
from training.pixel.sources import benchmarks, pairs, photos
from training.pixel.sources.spec import SourceSpec
from training.pixel.sources.units import UNIT_FEATURES
from training.source_files import SourceFiles, hash_files, stamps


FindFiles = Callable[[SourceSpec], SourceFiles]
ReadUnits = Callable[[SourceSpec, SourceFiles], Iterator[dict[str, Any]]]

READERS: Mapping[str, tuple[FindFiles, ReadUnits]] = {
    "pairs": (pairs.find_files, pairs.read_units),
    "benchmark": (benchmarks.find_files, benchmarks.read_units),
    "photos": (photos.find_files, photos.read_units),
}


@dataclass(frozen=True, eq=False)
class Source:
    """
    A source that was read.

    Attributes:
        spec (`SourceSpec`): Its entry in the mixture.
        files (`SourceFiles`): Its files.
        units (`datasets.Dataset`): Its units, rows of `UNIT_FEATURES`; images are decoded when a row is read.
        skipped (`Mapping[str, int]`): Number of images without a label, by reason.
    """

    spec: SourceSpec
    files: SourceFiles
    units: datasets.Dataset
    skipped: Mapping[str, int]

    @property
    def photos(self) -> list[str]:
        """Return the photo that each unit shows. Units of one photo are held out together."""
        names = self.units["photo"][:]
        return names if self.spec.photos_by == "path" else [PurePosixPath(name).name for name in names]

    def record(self) -> dict[str, Any]:
        """Return what the record of a training states about it, without paths of this machine."""
        return {
            **self.spec.to_dict(),
            "source": self.files.name,
            "revision": self.files.revision,
            "fingerprint": f"sha256:{hash_files(self.files.all())}",
            "units": len(self.units),
            "skipped": dict(self.skipped),
        }


def parse_sources(values: Sequence[str | Mapping[str, Any]]) -> list[SourceSpec]:
    """
    Read the entries of a mixture.

    Args:
        values (`Sequence`): Entries as [`SourceSpec.parse`] takes them.

    Raises:
        UserError: An entry has another form, or is of an unknown kind.
    """
    specs = [SourceSpec.parse(value) for value in values]
    for spec in specs:
        if spec.kind not in READERS:
            raise UserError(f"--sources must have a kind among {', '.join(READERS)}, got '{spec.kind}'")
    return specs


def read_source(spec: SourceSpec, seed: int) -> Source:
    """
    Read a source, from the cache of `datasets` if it has not changed.

    Args:
        spec (`SourceSpec`): What to read, from [`parse_sources`].
        seed (`int`): Seed of the choice of units if there is a limit.

    Raises:
        UserError: It cannot be read, or gives no unit.
    """
    find_files, _ = READERS[spec.kind]
    files = find_files(spec)
    rows = datasets.Dataset.from_generator(
        _rows,
        features=UNIT_FEATURES,
        # Everything that the rows depend on: it is hashed into the cache's name.
        gen_kwargs={"spec": spec, "files": files, "stamps": stamps(files.all())},
    )
    reasons = rows["skipped"][:]
    kept = [index for index, reason in enumerate(reasons) if not reason]
    if not kept:
        raise UserError(f"--sources must give labelled images, got none in '{spec.source}': {dict(Counter(reasons))}")
    if spec.limit is not None:
        names = rows["id"][:]
        kept = sorted(sorted(kept, key=lambda index: derive_seed(seed, names[index]))[: spec.limit])
    skipped = Counter(reason for reason in reasons if reason)
    return Source(spec, files, rows.select(kept).remove_columns("skipped"), dict(skipped.most_common()))


def _rows(spec: SourceSpec, files: SourceFiles, stamps: tuple[tuple[str, int, int], ...]) -> Iterator[dict[str, Any]]:
    _, read_units = READERS[spec.kind]
    yield from read_units(spec, files)
