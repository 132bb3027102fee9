"""
Counts of what a run has done so far, added up over the markers of its finished shards.

The folder of a run holds:

- `run.json`: settings, versions and, at the end, counts;
- `sources.jsonl`: names of the source photos, with their shards and variants;
- `data/*.parquet`: pairs, one file per shard;
- `shards/*.json`: marker of each finished shard with its counts, written after its pairs;
- `shards/*.journal`: what is finished of an unfinished shard;
- `rejected.jsonl`: all rejections, written at the end;
- `barred.json`: photos that killed a worker and are skipped;
- `logs/`: event log of each rank;
- `config.yaml`: options of `artiagent synthesize`;
- `.locks/`: lock files.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..schema.pair import Artifact, Pair, Rejection


# Scores recorded for each accepted artifact, for the medians in the summary.
SUMMARY_SCORES: tuple[Literal["change_inside", "change_outside", "psnr_outside"], ...] = (
    "change_inside",
    "change_outside",
    "psnr_outside",
)


@dataclass
class Totals:
    """
    Counts of a shard, or sums of several.

    Attributes:
        sources, pairs, rejections (`int`): Numbers of processed photos, written pairs and recorded rejections.
        accepted, discarded (`Counter[str]`): Artifacts that were made and accepted, or made and rejected, by
            `"type/tool/kernel"`.
        flagged (`Counter[str]`): Accepted artifacts that hardly changed their region, by type.
        rejected_at (`Counter[str]`): Rejections by stage.
        counters (`Counter[str]`): NFE, token evaluations, and requests and tokens of the VLM, by name.
        seconds (`float`): Time spent.
        scores (`dict[str, array]`): `SUMMARY_SCORES` of all accepted artifacts by type, concatenated.
    """

    sources: int = 0
    pairs: int = 0
    rejections: int = 0
    accepted: Counter[str] = field(default_factory=Counter)
    discarded: Counter[str] = field(default_factory=Counter)
    flagged: Counter[str] = field(default_factory=Counter)
    rejected_at: Counter[str] = field(default_factory=Counter)
    counters: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    scores: dict[str, array[float]] = field(default_factory=lambda: defaultdict(lambda: array("f")))

    def count(self, pairs: Sequence[Pair], rejections: Sequence[Rejection]) -> None:
        """Count one photo with its pairs and rejections."""
        self.sources += 1
        self.pairs += len(pairs)
        self.rejections += len(rejections)
        for pair in pairs:
            for artifact in pair.artifacts:
                self.accepted[_kind(artifact.type, artifact.tool, artifact.kernel)] += 1
                self.flagged[artifact.type] += bool(artifact.scores.get("unchanged"))
                self._note_scores(artifact)
        for rejection in rejections:
            self.rejected_at[rejection.stage] += 1
            if rejection.pair_id:
                self.discarded[_kind(rejection.type, rejection.tool, rejection.kernel)] += 1

    def _note_scores(self, artifact: Artifact) -> None:
        if all(name in artifact.scores for name in SUMMARY_SCORES):
            self.scores[artifact.type].extend(artifact.scores[name] for name in SUMMARY_SCORES)

    def merge(self, other: Totals) -> None:
        """Add the counts of another object."""
        for name in ("sources", "pairs", "rejections", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("accepted", "discarded", "flagged", "rejected_at", "counters"):
            getattr(self, name).update(getattr(other, name))
        for kind, values in other.scores.items():
            self.scores[kind].extend(values)

    def add(self, record: dict[str, Any]) -> None:
        """Add the counts in a dictionary made by [`as_dict`]."""
        for name in ("sources", "pairs", "rejections", "seconds"):
            setattr(self, name, getattr(self, name) + record[name])
        for name in ("accepted", "discarded", "rejected_at", "counters"):
            getattr(self, name).update(record[name])
        self.flagged.update(record.get("flagged", {}))  # absent if there are none
        for kind, values in record["scores"].items():
            self.scores[kind].extend(values)

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as a JSON-serialisable dictionary."""
        return {
            "sources": self.sources,
            "pairs": self.pairs,
            "rejections": self.rejections,
            "accepted": dict(self.accepted),
            "discarded": dict(self.discarded),
            **({"flagged": dict(+self.flagged)} if self.flagged.total() else {}),
            "rejected_at": dict(self.rejected_at),
            "counters": dict(self.counters),
            "seconds": round(self.seconds, 3),
            "scores": {kind: [float(f"{value:.5g}") for value in values] for kind, values in self.scores.items()},
        }

    def by_type(self, counts: Counter[str]) -> Counter[str]:
        """Return `counts`, such as `accepted`, summed by type."""
        total: Counter[str] = Counter()
        for kind, count in counts.items():
            total[kind.partition("/")[0]] += count
        return total

    @property
    def acceptance(self) -> dict[str, dict[str, int]]:
        """Return made and accepted artifacts as `{"type/tool/kernel": {"made": …, "accepted": …}}`."""
        kinds = sorted({*self.accepted, *self.discarded})
        return {
            kind: {"made": self.accepted[kind] + self.discarded[kind], "accepted": self.accepted[kind]}
            for kind in kinds
        }


def marker(out: Path, shard: int) -> Path:
    """Return the path of the file that marks a shard as finished."""
    return out / "shards" / f"{shard:05d}.json"


def read_markers(out: Path) -> Iterator[dict[str, Any]]:
    """Yield the markers of all finished shards, in order."""
    for path in sorted((out / "shards").glob("*.json")):
        yield json.loads(path.read_text(encoding="utf-8"))


def journal_path(out: Path, shard: int) -> Path:
    """Return the path of the journal of an unfinished shard, see [`~datasets_script.engine.journal`]."""
    return marker(out, shard).with_suffix(".journal")


def read_journaled(out: Path) -> Iterator[dict[str, Any]]:
    """Yield the photos in the journals of unfinished shards, as `source_id` and the `bytes` that their rows take."""
    for path in sorted((out / "shards").glob("*.journal")):
        if path.with_suffix(".json").exists():  # finished by a process that was killed before it removed the journal
            continue
        size = path.stat().st_size
        with path.open("rb") as file, suppress(ValueError):  # a torn line ends a journal
            while line := file.readline():
                header = json.loads(line)
                end = file.tell() + header["bytes"]
                if end <= size:
                    yield header
                file.seek(end)


def read_totals(out: Path) -> Totals:
    """Sum the counts of all finished shards."""
    totals = Totals()
    for record in read_markers(out):
        totals.add(record)
    return totals


def read_rejected(out: Path) -> Iterator[dict[str, Any]]:
    """Yield the rejections of all finished shards."""
    for record in read_markers(out):
        yield from record["rejected"]


def json_lines(records: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield each record as a line of JSON."""
    for record in records:
        yield json.dumps(record, ensure_ascii=False) + "\n"


def _kind(*parts: str) -> str:
    return "/".join(part for part in parts if part)
