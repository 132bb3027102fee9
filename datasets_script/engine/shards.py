"""Divide the sources of a run into shards."""

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
    """The output folder holds a run with other settings, versions or sources."""


@dataclass(frozen=True)
class Shards:
    """Source ids in their order, `size` of them a shard."""

    sources: Sequence[str]
    size: int

    def __len__(self) -> int:
        return -(-len(self.sources) // self.size)

    def of(self, shard: int) -> Sequence[str]:
        return self.sources[shard * self.size : (shard + 1) * self.size]

    def count_finished(self, out: Path) -> int:
        """Sources in finished shards."""
        return sum(len(self.of(shard)) for shard in range(len(self)) if marker(out, shard).exists())


def read_barred(out: Path) -> dict[str, str]:
    """Photos that are not to be opened, with the reason: those that killed a worker."""
    path = out / "barred.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def read_sources(out: Path) -> dict[str, str]:
    """The sources of a run in order; where one is the same file as another, the other's name, else an empty string."""
    lines = (out / "sources.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    return {record["source_id"]: record.get("same_as", "") for record in map(json.loads, lines)}


def _recorded_sources(out: Path, folder: Path, sources: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """
    The sources that a run in `out` began with, which may have lost files since, and the duplicates among them; those
    given where there is no run yet.
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
            "sources to continue that run, or choose another output folder (--force-new starts one beside it)"
        )
    return list(recorded), {name: other for name, other in recorded.items() if other}
