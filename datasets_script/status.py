"""`artiagent status`: what a run has done, whether it is at work, and how long it will take."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import Any

from .engine import working_ranks
from .ledger import read_totals
from .run_log import log_path
from .show import acceptance_table


# Photographs whose time the rate is taken from: the latest, as later stages of a run can be slower than the first.
_LATEST = 200


def status_text(out: Path) -> str:
    """
    The state of a run, for people.

    Args:
        out (`Path`): A folder with a `run.json`.
    """
    run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    totals, count = read_totals(out), run["sources"]["count"]
    size = run["settings"]["shard_size"]
    shards, finished = -(-count // size), sum(1 for _ in (out / "shards").glob("*.json"))
    ranks = working_ranks(out)
    state = "complete" if run["status"] == "complete" else "at work" if ranks else "stopped"
    lines = [
        f"{out}: {state}",
        f"shards {finished}/{shards}, photographs {totals.sources}/{count} in finished shards, "
        f"pairs {totals.pairs}, rejections {totals.rejections}",
    ]
    lines += [_rank_line(out, rank, world_size) for rank, world_size in ranks]
    if state == "at work":
        lines.append(_time_left(out, count - totals.sources, ranks))
    elif state == "stopped":
        lines.append(_last_words(out))
    if totals.accepted or totals.discarded:
        lines += ["", acceptance_table(totals)]
    if totals.counters:
        lines += ["", "spent: " + ", ".join(f"{name} {number:,}" for name, number in sorted(totals.counters.items()))]
    return "\n".join(line for line in lines if line is not None)


def _events(out: Path, rank: int) -> list[dict[str, Any]]:
    path = log_path(out, rank)
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        # The last line may still be being written.
        return [json.loads(line) for line in deque(file, 2 * _LATEST) if line.endswith("\n")]


def _rank_line(out: Path, rank: int, world_size: int) -> str:
    events = _events(out, rank)
    samples = [event for event in events if event["event"] == "sample"][-_LATEST:]
    seconds = sum(event["seconds"] for event in samples)
    at = f", last '{samples[-1]['source_id']}'" if samples else ""
    rate = f", {sum(event['pairs'] for event in samples) / seconds:.2f} pairs/s" if seconds else ""
    return f"rank {rank} of {world_size}: at work{at}{rate}"


def _time_left(out: Path, photographs: int, ranks: list[tuple[int, int]]) -> str:
    rate = 0.0
    for rank, _ in ranks:
        samples = [event for event in _events(out, rank) if event["event"] == "sample"][-_LATEST:]
        if seconds := sum(event["seconds"] for event in samples):
            rate += len(samples) / seconds
    if not rate:
        return "time left: not known before the first photograph is done"
    return f"time left: about {_duration(photographs / rate)} ({rate:.2f} photographs/s)"


def _duration(seconds: float) -> str:
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes} min" if hours < 2 else f"{hours} h"


def _last_words(out: Path) -> str:
    """Why the ranks of a run that is not at work have stopped, as far as they could say."""
    stops = []
    for path in sorted((out / "logs").glob("rank-*.jsonl")):
        events = _events(out, int(path.stem.removeprefix("rank-")))
        if events and events[-1]["event"] == "stopped":
            stops.append(f"rank {int(path.stem.removeprefix('rank-'))} stopped: {events[-1]['reason']}")
        elif events and events[-1]["event"] != "finished":
            stops.append(f"rank {int(path.stem.removeprefix('rank-'))} was killed")
    return "\n".join([*stops, "the command that began the run continues it"])
