"""Text of `artiagent status`: state and progress of a run, and the time left."""

from __future__ import annotations

import json
from collections import Counter, deque
from pathlib import Path
from typing import Any

from ..schema.correction import CORRECTIONS_FILE, CorrectedImage, CorrectionRecord, totals_of
from ..schema.generation import CANDIDATES_FILE, GenerationRecord, read_prompts
from ..schema.run_record import RunRecord, command_of
from .ledger import read_journaled, read_totals
from .locks import working_ranks
from .log import log_path, parse_events
from .shards import Shards
from .summary import acceptance_table


# The rate is measured on this many of the latest photos, because the speed of a run can change.
_LATEST = 200


def status_text(out: Path) -> str:
    """
    Return the state of a run as text: of one that makes pairs, of `artiagent generate`, or of `artiagent correct`.

    Args:
        out (`Path`): Folder of the run.

    Raises:
        UserError: See [`RunRecord.read`].
    """
    command = command_of(out)
    if command == "generate":
        return _generation_text(out)
    if command == "correct":
        return _correction_text(out)
    run = RunRecord.read(out)
    totals, division = read_totals(out), Shards.read(out, run.settings)
    count, finished = division.num_tasks, sum(1 for _ in (out / "shards").glob("*.json"))
    journaled = sum(1 for _ in read_journaled(out))
    more = f" and {journaled} in others" if journaled else ""
    ranks = working_ranks(out)
    state = "complete" if run.is_complete else "running" if ranks else "stopped"
    lines = [
        f"{out}: {state}",
        f"shards {finished}/{len(division)}, photos {totals.sources}/{count} in finished shards{more}, "
        f"pairs {totals.pairs}, rejections {totals.rejections}",
    ]
    samples = [_latest_samples(out, rank) for rank, _ in ranks]
    lines += [_rank_line(*who, done) for who, done in zip(ranks, samples, strict=True)]
    if state == "running":
        lines.append(_time_left(count - totals.sources - journaled, samples))
    elif state == "stopped":
        lines.append(_last_words(out))
    if totals.accepted or totals.discarded:
        lines += ["", acceptance_table(totals)]
    if totals.counters:
        lines += ["", "spent: " + ", ".join(f"{name} {number:,}" for name, number in sorted(totals.counters.items()))]
    return "\n".join(lines)


def _generation_text(out: Path) -> str:
    record, prompts = GenerationRecord.read(out), read_prompts(out)
    images = len(prompts) * record.settings["images_per_prompt"]
    total = images * (2 * record.settings["best_of"] - 1)
    lines = _state_lines(out, record.status)
    drawn = len(_whole_lines(out / CANDIDATES_FILE))
    lines.append(f"prompts {len(prompts)}, images {images}, candidates drawn {drawn}/{total}")
    if record.curve:
        lines.append("mean best score after each round: " + ", ".join(f"{score:.4f}" for score in record.curve))
    return "\n".join(lines)


def _correction_text(out: Path) -> str:
    record = CorrectionRecord.read(out)
    done = [CorrectedImage.from_dict(json.loads(line)) for line in _whole_lines(out / CORRECTIONS_FILE)]
    totals = totals_of(done)
    lines = _state_lines(out, record.status)
    lines.append(
        f"images done {totals['images']}, with regions {totals['with_artifacts']}, changed {totals['changed']}"
    )
    outcomes = Counter(region.outcome for image in done for region in image.regions)
    told = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.most_common())
    lines.append(f"regions {totals['regions']}{f': {told}' if told else ''}; {totals['rounds']} rounds")
    return "\n".join(lines)


def _whole_lines(path: Path) -> list[bytes]:
    """Return the lines of a file that another process may be writing."""
    content = path.read_bytes() if path.is_file() else b""
    return content[: content.rfind(b"\n") + 1].splitlines()


def _state_lines(out: Path, status: str) -> list[str]:
    running = status != "complete" and working_ranks(out)
    state = "running" if running else "complete" if status == "complete" else "stopped"
    return [f"{out}: {state}", *(["rerun the command that started the run to continue it"] * (state == "stopped"))]


def _events(out: Path, rank: int) -> list[dict[str, Any]]:
    path = log_path(out, rank)
    if not path.exists():
        return []
    with path.open(encoding="utf-8", errors="replace") as file:
        return list(parse_events(deque(file, 2 * _LATEST)))


def _latest_samples(out: Path, rank: int) -> list[dict[str, Any]]:
    return [event for event in _events(out, rank) if event["event"] == "sample"][-_LATEST:]


def _rank_line(rank: int, world_size: int, samples: list[dict[str, Any]]) -> str:
    seconds = sum(event["seconds"] for event in samples)
    at = f", last '{samples[-1]['source_id']}'" if samples else ""
    rate = f", {sum(event['pairs'] for event in samples) / seconds:.2f} pairs/s" if seconds else ""
    return f"rank {rank} of {world_size}: running{at}{rate}"


def _time_left(photos: int, samples_of_ranks: list[list[dict[str, Any]]]) -> str:
    rate = 0.0
    for samples in samples_of_ranks:
        if seconds := sum(event["seconds"] for event in samples):
            rate += len(samples) / seconds
    if not rate:
        return "time left: unknown until the first photo is done"
    return f"time left: about {_duration(photos / rate)} ({rate:.2f} photos/s)"


def _duration(seconds: float) -> str:
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes} min" if hours < 2 else f"{hours} h"


def _last_words(out: Path) -> str:
    """Return why each rank of a stopped run ended, as far as its log tells."""
    stops = []
    for path in sorted((out / "logs").glob("rank-*.jsonl")):
        events = _events(out, int(path.stem.removeprefix("rank-")))
        if events and events[-1]["event"] == "stopped":
            stops.append(f"rank {int(path.stem.removeprefix('rank-'))} stopped: {events[-1]['reason']}")
        elif events and events[-1]["event"] != "finished":
            stops.append(f"rank {int(path.stem.removeprefix('rank-'))} was killed")
    return "\n".join([*stops, "rerun the command that started the run to continue it"])
