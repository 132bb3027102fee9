"""Merging of complete runs into one folder that is read, reported on, exported and published like a run."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..figures.sheets import contact_sheets, save_pages
from ..schema.run_record import RunRecord
from ..utils.errors import UserError
from ..utils.files import replacing_folder, write_json
from .card import write_pair_card
from .old_layout import upgrade_shards
from .storage import check_shards, find_shards, read_pairs


Count = TypeVar("Count", int, float)


def merge_runs(sources: Sequence[Path], out: Path) -> RunRecord:
    """
    Merge complete runs: copy their shards, markers, lists of photos and rejections, and describe the whole.

    Args:
        sources (`Sequence[Path]`): Folders written by `artiagent synthesize`, at least two.
        out (`Path`): Folder to write; must be missing or empty.

    Returns:
        `RunRecord`: Record of the whole. Settings in which the runs differ hold all values.

    Raises:
        UserError: A folder holds no complete run, two runs have a pair of the same id, or `out` is not empty.
    """
    if len(sources) < 2:
        raise UserError(f"`sources` must be at least two folders of runs, got {len(sources)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f"`out` must be missing or empty, got '{out.absolute()}'; choose another folder. Nothing was written"
        )
    check_shards(find_shards([str(source) for source in sources]))
    record = _merged([RunRecord.read(source) for source in sources])
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
                write_json(folder / "shards" / f"{shard:05d}.json", marker | {"fingerprint": record.fingerprint})
                shutil.copyfile(path, folder / "data" / f"pairs-{shard:05d}.parquet")
                shard += 1
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / "sources.jsonl").write_text(text, encoding="utf-8")
        (folder / "rejected.jsonl").write_bytes(b"".join((run / "rejected.jsonl").read_bytes() for run in sources))
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


def _merged(runs: Sequence[RunRecord]) -> RunRecord:
    identity = {name: _merged_value([run.identity[name] for run in runs]) for name in runs[0].identity}
    count = sum(run.sources["count"] for run in runs)
    identity["sources"] = {"count": count, "sha256": _digest(run.sources["sha256"] for run in runs)}
    acceptance: dict[str, Counter[str]] = {}
    for run in runs:
        for kind, counts in run.acceptance.items():
            acceptance.setdefault(kind, Counter()).update(counts)
    licenses = {run.license for run in runs}
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
