"""Sources of a run, as recorded in its folder, and their division into shards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..utils.errors import UserError
from ..utils.files import write_text
from ..utils.photos import find_duplicates
from .ledger import json_lines, marker


class RunMismatchError(UserError, ValueError):
    """Error for an output folder that holds a run with other settings, versions or sources."""


@dataclass(frozen=True)
class Shards:
    """Division of source ids, in order, into shards of `size`."""

    sources: Sequence[str]
    size: int

    def __len__(self) -> int:
        return -(-len(self.sources) // self.size)

    def of(self, shard: int) -> Sequence[str]:
        """Return the source ids of a shard."""
        return self.sources[shard * self.size : (shard + 1) * self.size]

    def count_finished(self, out: Path) -> int:
        """Count the sources in shards that are finished in the folder `out`."""
        return sum(len(self.of(shard)) for shard in range(len(self)) if marker(out, shard).exists())


def read_barred(out: Path) -> dict[str, str]:
    """Return the photos that killed a worker and must not be opened again, with the reason."""
    path = out / "barred.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def read_sources(out: Path) -> dict[str, str]:
    """Return the sources of a run in order; the value is the name of an earlier identical file, or an empty string."""
    lines = (out / "sources.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    return {record["source_id"]: record.get("same_as", "") for record in map(json.loads, lines)}


def recorded_sources(out: Path, folder: Path, sources: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """
    Return the sources that a run began with, and record them if it is new. Files may have been removed since then.

    Args:
        out (`Path`): Folder of the run.
        folder (`Path`): Folder of the photos.
        sources (`Sequence[str]`): Source ids that are there now, in order.

    Returns:
        `tuple[list[str], dict[str, str]]`: Source ids in order, and for each duplicate the earlier identical file.

    Raises:
        RunMismatchError: Sources were added or left out since the run began.
    """
    if not (out / "sources.jsonl").exists():
        same = find_duplicates(folder, sources)
        records = ({"source_id": s, **({"same_as": same[s]} if s in same else {})} for s in sources)
        write_text(out / "sources.jsonl", "".join(json_lines(records)))
    recorded = read_sources(out)
    added = sorted(set(sources) - recorded.keys())
    left_out = [name for name in recorded.keys() - set(sources) if (folder / name).exists()]
    if added or left_out:
        what = f"'{added[0]}' is new" if added else f"'{sorted(left_out)[0]}' is left out"
        raise RunMismatchError(
            f"'{out}' holds a run with other sources, {len(recorded)} and not {len(sources)} ({what}); give the same "
            "sources to resume that run, or choose another output folder (--force-new starts one next to it)"
        )
    return list(recorded), {name: other for name, other in recorded.items() if other}
