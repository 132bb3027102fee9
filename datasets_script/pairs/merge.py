"""Merging of complete runs into one folder that is read, reported on, exported and published like a run."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from ..edits.pair_rows import PairEdits, edited_pair
from ..edits.planned import NO_EDITS, EditReport, PlannedEdits
from ..edits.records import SampleEdits
from ..figures.sheets import contact_sheets, save_pages
from ..schema.pair import Rejection
from ..schema.run_record import RunRecord
from ..utils.errors import UserError
from ..utils.files import replacing_folder, write_json
from .card import write_pair_card
from .edited import edits_in, plan_edits
from .old_layout import upgrade_shards
from .storage import PairWriter, check_shards, find_shards, read_pairs, read_rows


Count = TypeVar("Count", int, float)

EDITED = "edits"
"""Stage of the rejections of people, whose edits a merge applies."""


def merge_runs(sources: Sequence[Path], out: Path, edits: bool = True) -> RunRecord:
    """
    Merge complete runs: copy their shards, markers, lists of photos and rejections, and describe the whole. Edits of
    the layers beside the runs are applied: shards that hold edited pairs are written anew, and a rejected pair is a
    rejection on record.

    Args:
        sources (`Sequence[Path]`): Folders written by `artiagent synthesize`, at least two, or one that has edits.
        out (`Path`): Folder to write; must be missing or empty.
        edits (`bool`, *optional*, defaults to `True`): Whether to apply edits.

    Returns:
        `RunRecord`: Record of the whole, with what became of the edits. Settings in which the runs differ hold all
            values.

    Raises:
        UserError: A folder holds no complete run, two runs have a pair of the same id, `out` is not empty, or a line
            of a layer is no edit.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f"`out` must be missing or empty, got '{out.absolute()}'; choose another folder. Nothing was written"
        )
    files = find_shards([str(source) for source in sources])
    check_shards(files)
    planned = plan_edits(files) if edits else NO_EDITS
    if len(sources) < 2 and not planned.samples:
        raise UserError(
            f"`sources` must be at least two folders of runs, got {len(sources)}; one is enough if people edited it, "
            "and there are no edits to apply"
        )
    runs = [RunRecord.read(source) for source in sources]
    record = _merged(runs, planned)
    counted = _Counted()
    with replacing_folder(out) as folder:
        for name in ("data", "shards"):
            (folder / name).mkdir()
        lines: list[dict[str, Any]] = []
        shard = 0
        for source in sources:
            lines += _listed(source, shard)
            for path in sorted((source / "data").glob("*.parquet")):
                number = path.stem.rpartition("-")[2]
                marker = json.loads((source / "shards" / f"{number}.json").read_text(encoding="utf-8"))
                target, of_shard = folder / "data" / f"pairs-{shard:05d}.parquet", edits_in(str(path), planned)
                if of_shard:
                    marker = counted.edited(marker, _write_edited(path, target, of_shard))
                else:
                    shutil.copyfile(path, target)
                write_json(folder / "shards" / f"{shard:05d}.json", marker | {"fingerprint": record.fingerprint})
                shard += 1
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / "sources.jsonl").write_text(text, encoding="utf-8")
        rejected = [(run / "rejected.jsonl").read_bytes() for run in sources]
        rejected += [(json.dumps(one, ensure_ascii=False) + "\n").encode() for one in counted.rejections]
        (folder / "rejected.jsonl").write_bytes(b"".join(rejected))
        record = counted.in_record(record)
        upgrade_shards(folder)
        write_pair_card(folder, record)
        if record.pairs:
            save_pages(contact_sheets(read_pairs(folder)), folder / "contact_sheet.png")
        record.write(folder)
    return record


def _listed(source: Path, first: int) -> list[dict[str, Any]]:
    """Read the list of a run's photos, its shards numbered from `first`."""
    settings = RunRecord.read(source).settings
    lines = (source / "sources.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    records = []
    for index, record in enumerate(map(json.loads, lines)):
        shard = record["shard"] if "shard" in record else index // settings["shard_size"]
        variants = record.get("variants", [0, settings.get("pairs_per_image", 1)])
        records.append(record | {"shard": first + shard, "variants": variants})
    return records


@dataclass(frozen=True)
class _Change:
    """An artifact before and after the edits; `after` is `None` if it was rejected or taken out."""

    pair: Mapping[str, Any]
    before: Mapping[str, Any]
    after: Mapping[str, Any] | None
    reason: str


def _write_edited(source: Path, target: Path, edits: PairEdits) -> list[_Change]:
    """Write a shard with edits applied, and return what they did to each artifact of the pairs."""
    changes: list[_Change] = []
    with PairWriter(target) as writer:
        for row in read_rows([str(source)]):
            one = edits.get(row["pair_id"])
            edited = row if one is None else edited_pair(row, one)
            if edited is not None:
                writer.write_rows([edited])
            if one is not None:
                changes += _changes(row, edited, one)
    return changes


def _changes(row: Mapping[str, Any], edited: Mapping[str, Any] | None, edits: SampleEdits) -> list[_Change]:
    if edited is None:
        return [_Change(row, artifact, None, "a person rejected the pair") for artifact in row["artifacts"]]
    kept = iter(edited["artifacts"])
    gone = {number for number, values in edits.regions.items() if values.present is False}
    return [
        _Change(row, artifact, None if number in gone else next(kept), "a person took the region out")
        for number, artifact in enumerate(row["artifacts"])
    ]


class _Counted:
    """Counts of markers and of the record, brought to what the edits leave."""

    def __init__(self) -> None:
        self.rejections: list[dict[str, Any]] = []
        self._pairs = 0
        # Changes of the counts of artifacts, by "type/tool/kernel".
        self._made, self._accepted = Counter[str](), Counter[str]()

    def edited(self, marker: dict[str, Any], changes: Sequence[_Change]) -> dict[str, Any]:
        """Return the marker of a shard as it is after edits, and note what they did."""
        accepted, discarded = Counter(marker["accepted"]), Counter(marker["discarded"])
        rejections = []
        kept, all_of = set(), set()
        for change in changes:
            pair_id, kind = change.pair["pair_id"], _kind(change.before)
            all_of.add(pair_id)
            accepted[kind] -= 1
            self._accepted[kind] -= 1
            if change.after is None:
                discarded[kind] += 1
                rejections.append(_rejection(change))
                continue
            kept.add(pair_id)
            accepted[_kind(change.after)] += 1
            self._accepted[_kind(change.after)] += 1
            self._made[kind] -= 1
            self._made[_kind(change.after)] += 1
        self._pairs += len(all_of - kept)
        self.rejections += rejections
        return marker | {
            "pairs": marker["pairs"] - len(all_of - kept),
            "rejections": marker["rejections"] + len(rejections),
            "accepted": {kind: count for kind, count in accepted.items() if count},
            "discarded": dict(discarded),
            "rejected_at": dict(Counter(marker["rejected_at"]) + Counter({EDITED: len(rejections)})),
            "rejected": [*marker["rejected"], *rejections],
        }

    def in_record(self, record: RunRecord) -> RunRecord:
        """Return the record of the whole with what the edits did to its counts."""
        if not self._accepted and not self.rejections:
            return record
        acceptance = {kind: Counter(counts) for kind, counts in record.acceptance.items()}
        for name, differences in (("made", self._made), ("accepted", self._accepted)):
            for kind, count in differences.items():
                acceptance.setdefault(kind, Counter())[name] += count
        rejected_at = {**record.rejected_at}
        if self.rejections:
            rejected_at[EDITED] = rejected_at.get(EDITED, 0) + len(self.rejections)
        return replace(
            record,
            pairs=record.pairs - self._pairs,
            rejected=record.rejected + len(self.rejections),
            made=_by_type(record.made, self._made),
            accepted=_by_type(record.accepted, self._accepted),
            acceptance={
                kind: {"made": counts["made"], "accepted": counts["accepted"]}
                for kind, counts in acceptance.items()
                if counts["made"]
            },
            rejected_at=rejected_at,
        )


def _kind(artifact: Mapping[str, Any]) -> str:
    return "/".join(part for part in (artifact["type"], artifact["tool"], artifact["kernel"]) if part)


def _by_type(counts: Mapping[str, int], differences: Mapping[str, int]) -> dict[str, int]:
    total = Counter(counts)
    for kind, count in differences.items():
        total[kind.partition("/")[0]] += count
    return {kind: count for kind, count in total.items() if count or kind in counts}


def _rejection(change: _Change) -> dict[str, Any]:
    names = ("type", "tool", "kernel", "entity", "part")
    rejection = Rejection(
        change.pair["source_id"],
        EDITED,
        change.reason,
        pair_id=change.pair["pair_id"],
        **{name: change.before[name] for name in names},
        scores=json.loads(change.before["scores"]),
    )
    return asdict(rejection)


def _merged(runs: Sequence[RunRecord], planned: PlannedEdits) -> RunRecord:
    identity = {name: _merged_value([run.identity[name] for run in runs]) for name in runs[0].identity}
    count = sum(run.sources["count"] for run in runs)
    identity["sources"] = {"count": count, "sha256": _digest(run.sources["sha256"] for run in runs)}
    acceptance: dict[str, Counter[str]] = {}
    for run in runs:
        for kind, counts in run.acceptance.items():
            acceptance.setdefault(kind, Counter()).update(counts)
    licenses = {run.license for run in runs}
    edits = planned.report
    for run in runs:
        edits = edits.and_of(EditReport.from_dict(run.edits)) if run.edits else edits
    return RunRecord(
        **identity,
        status="complete",
        fingerprint=_digest(run.fingerprint for run in runs)[:16],
        pairs=sum(run.pairs for run in runs),
        rejected=sum(run.rejected for run in runs),
        made=_sum(run.made for run in runs),
        accepted=_sum(run.accepted for run in runs),
        acceptance={kind: dict(counts) for kind, counts in acceptance.items()},
        rejected_at=_sum(run.rejected_at for run in runs),
        counters=_sum(run.counters for run in runs),
        seconds=round(sum(run.seconds for run in runs), 3),
        license=licenses.pop() if len(licenses) == 1 else "",
        edits=edits.as_dict() if any(edits.as_dict().values()) else {},
    )


def _merged_value(values: Sequence[Any]) -> Any:
    if all(value == values[0] for value in values):
        return values[0]
    if all(isinstance(value, Mapping) for value in values):
        names = dict.fromkeys(name for value in values for name in value)
        return {name: _merged_value([value.get(name) for value in values]) for name in names}
    if all(isinstance(value, str) for value in values):
        return ", ".join(dict.fromkeys(values))
    return [value for index, value in enumerate(values) if value not in values[:index]]


def _sum(counts: Iterable[Mapping[str, Count]]) -> dict[str, Count]:
    total: dict[str, Count] = {}
    for of_run in counts:
        for name, count in of_run.items():
            total[name] = total[name] + count if name in total else count
    return total


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
