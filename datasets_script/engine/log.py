"""Event log of each rank, as JSON lines that other programs can follow, and the progress bar that reads it."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from tqdm import tqdm

from diffusers_artifact.artifact_types import RECORDS

from ..schema.expected_types import expected_types


class RunLog(logging.Handler):
    """
    Event log of one rank, `logs/rank-00000.jsonl`. Each line is a JSON object with `time` (UTC), `event` and the
    event's own fields. It is also a logging handler: warnings of the package become events named `warning`.

    Args:
        out (`Path`): Folder of the run.
        rank (`int`): Number of the process.
    """

    def __init__(self, out: Path, rank: int) -> None:
        super().__init__(logging.WARNING)
        self.path = log_path(out, rank)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._writing = Lock()  # warnings come from other threads, too
        self._file = self.path.open("a", encoding="utf-8")
        self._file.write("\n")  # ends a line left incomplete when the rank was killed

    def write(self, event: str, **content: Any) -> None:
        """Append an event with its fields."""
        record = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **content}
        line = json.dumps(record, ensure_ascii=False) + "\n"
        with self._writing:
            self._file.write(line)
            self._file.flush()

    def emit(self, record: logging.LogRecord) -> None:
        self.write(record.levelname.lower(), message=record.getMessage())

    def close(self) -> None:
        self._file.close()
        super().close()


def log_path(out: Path, rank: int) -> Path:
    """Return the path of a rank's log in the folder of a run."""
    return out / "logs" / f"rank-{rank:05d}.jsonl"


def parse_events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the events in the lines of a log, without lines left incomplete when the rank was killed."""
    for line in lines:
        with suppress(ValueError):
            yield json.loads(line)


class LogTail:
    """Reader of the events appended to a log after its creation."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = path.stat().st_size if path.exists() else 0

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the events appended since the last call."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.position)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self.position += len(line)
                yield from parse_events([line.decode("utf-8", errors="replace")])


class ProgressLine:
    """
    Progress bar over photos, with pairs per second, by type accepted out of made artifacts, and retried requests.

    Args:
        command (`str`): What makes the run, such as `"synthesize"`.
        total (`int`): Photos of the run.
        done (`int`): Photos that were finished before.
        shown (`bool`, *optional*, defaults to `True`): Whether to show the bar.
    """

    def __init__(self, command: str, total: int, done: int, shown: bool = True) -> None:
        self.bar = tqdm(total=total, initial=done, unit="photo", desc=command, smoothing=0.1, disable=not shown)
        self.pairs, self.retries, self.kept, self.made = 0, 0, Counter[str](), Counter[str]()

    def take(self, event: dict[str, Any]) -> None:
        """Advance by one event of a log; events other than `sample` and `shard` are ignored."""
        if event["event"] == "shard":
            self.restore(len(event["restored"]))
        if event["event"] != "sample":
            return
        self.pairs += event["pairs"]
        self.retries += event["retries"]
        self.kept.update(event["accepted"])
        self.made.update(event["accepted"])
        self.made.update(event["discarded"])
        rate = self.pairs / self.bar.format_dict["elapsed"] if self.bar.format_dict["elapsed"] else 0.0
        kinds = (
            f"{RECORDS[kind].short_name} {self.kept[kind]}/{self.made[kind]}" for kind in expected_types(self.made)
        )
        retries = f"; {self.retries} retries" if self.retries else ""
        self.bar.set_postfix_str(f"{self.pairs} pairs, {rate:.2f}/s; kept {' '.join(kinds)}{retries}", refresh=False)
        self.bar.update()

    def restore(self, photos: int) -> None:
        """Advance by photos that an earlier process has finished in an unfinished shard."""
        self.bar.update(photos)

    def take_back(self, photos: int) -> None:
        """Go back by photos that have to be processed again, as their shard was not finished."""
        self.bar.update(-photos)

    def close(self) -> None:
        self.bar.close()
