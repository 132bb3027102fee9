"""
A run: all stages over a folder of photos, written shard by shard, so that it can be stopped at any moment and resumed
by any number of processes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock
from tqdm.contrib.logging import logging_redirect_tqdm

from evaluate_metrics.functional.versions import recorded_versions

from ..figures.sheets import contact_sheet
from ..pairs.card import write_pair_card
from ..pairs.old_layout import upgrade_shards
from ..pairs.storage import PairWriter, read_pairs
from ..schema.run_record import RUN_FILE, RunRecord
from ..utils.errors import StoppedError
from ..utils.files import replacing, write_json
from .ledger import Totals, json_lines, marker, read_markers, read_rejected, read_totals
from .locks import holding_rank, lock_folder
from .log import ProgressLine, RunLog
from .shards import RunMismatchError, Shards, read_barred, recorded_sources
from .stages import Sample
from .synthesizer import Synthesizer


# After this many photos with an unexpected error, a lack of memory or an unreadable answer, and none between them that
# artifacts were injected into without one, the cause is not the photos. Photos that hold nothing to work on, and files
# that are no photos, say nothing about the machine: they neither count nor end the streak.
MAX_FAILURES_IN_A_ROW = 20

# Batches and variants have been halved before a photo fails.
_MORE_MEMORY = "Free memory or choose a --device with more"


class RunAborted(StoppedError):
    """Error for a run that would keep failing; finished shards are kept and the run can be resumed."""


class Run:
    """
    Run of the synthesis in an output folder, whose files [`datasets_script.engine.ledger`] lists.

    Args:
        out (`Path`): Output folder. An existing run there with the same settings is resumed.
        source_folder (`Path`): Folder of the photos.
        sources (`Sequence[str]`): Source ids, in order.
        synthesizer (`Synthesizer`): Chain of stages that makes the pairs.
        rank (`int`, *optional*, defaults to 0): Number of this process, from 0. It makes every `world_size`-th shard.
        world_size (`int`, *optional*, defaults to 1): Number of processes that share the run. It may differ when the
            run is resumed.

    Raises:
        RunMismatchError: The folder holds a run with other settings, versions or sources.
    """

    def __init__(
        self,
        out: Path,
        source_folder: Path,
        sources: Sequence[str],
        synthesizer: Synthesizer,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.out, self.synthesizer, self.rank, self.world_size = out, synthesizer, rank, world_size
        self.failures_in_a_row = 0
        self.failed_in_shard = False
        self.shards_in_doubt: list[int] = []
        """Finished shards with a failure of the current streak."""
        self.out_of_memory: list[str] = []
        """Photos that memory ran out at, whose shards are left unfinished."""
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(lock_folder(out) / "start.lock"):
            sources, self.duplicates = recorded_sources(out, source_folder, sources)
            self.shards = Shards(sources, synthesizer.settings.shard_size)
            self._check_identity()

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Return everything that the pairs depend on, JSON-serialisable; see [`RunRecord.identity`]."""
        names = hashlib.sha256("\n".join(self.shards.sources).encode()).hexdigest()
        return json.loads(
            json.dumps(
                {
                    "settings": asdict(self.synthesizer.settings),
                    **self.synthesizer.identity,
                    "versions": recorded_versions(),
                    "sources": {"count": len(self.shards.sources), "sha256": names},
                }
            )
        )

    @cached_property
    def fingerprint(self) -> str:
        """Return the hash of the identity that the marker of every shard holds."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:16]

    def _check_identity(self) -> None:
        if not (self.out / RUN_FILE).exists():
            if any(record["fingerprint"] != self.fingerprint for record in read_markers(self.out)):
                raise RunMismatchError(
                    f"'{self.out}' has lost its {RUN_FILE} and holds shards of another run; restore the file, or "
                    "choose another output folder"
                )
            RunRecord(**self.identity).write(self.out)
            return
        different = sorted(differences(RunRecord.read(self.out).identity, self.identity))
        if different:
            raise RunMismatchError(
                f"'{self.out}' holds a run with another {', '.join(different)}; give the same settings to resume "
                "that run, or choose another output folder (--force-new starts one next to it)"
            )

    def execute(self, show_progress: bool = True) -> RunRecord:
        """
        Make the missing shards of this rank and, if they are the last ones, the files that describe the dataset.

        Args:
            show_progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.

        Returns:
            `RunRecord`: Record of the run, complete unless other ranks are still working.

        Raises:
            RunBusyError: Another process has this rank, or works with another world size.
            RunAborted: Too many photos in a row have failed unexpectedly, or memory ran out at some, which have to be
                tried again.
        """
        with holding_rank(self.out, self.rank, self.world_size), self._logging() as log:
            progress = None
            if show_progress:
                progress = ProgressLine(len(self.shards.sources), self.shards.count_finished(self.out))
            try:
                for shard in range(self.rank, len(self.shards), self.world_size):
                    if not marker(self.out, shard).exists():
                        self._make_shard(shard, log, progress)
            finally:
                if progress:
                    progress.close()
            self._report_memory()
            log.write("finished")
        return self._finish()

    @contextmanager
    def _logging(self) -> Iterator[RunLog]:
        log, package = RunLog(self.out, self.rank), logging.getLogger("datasets_script")
        log.write("start", rank=self.rank, world_size=self.world_size, fingerprint=self.fingerprint)
        package.addHandler(log)
        try:
            with logging_redirect_tqdm([package]):
                yield log
        except BaseException as error:
            log.write("stopped", reason=f"{type(error).__name__}: {error}")
            raise
        finally:
            package.removeHandler(log)
            log.close()

    def _make_shard(self, shard: int, log: RunLog, progress: ProgressLine | None) -> None:
        start, totals, rejected, short = time.perf_counter(), Totals(), [], len(self.out_of_memory)
        self.failed_in_shard = False
        before = dict(self.synthesizer.counters())
        log.write("shard", shard=shard, sources=len(self.shards.of(shard)))
        with replacing(self.out / "data" / f"pairs-{shard:05d}.parquet") as temporary, PairWriter(temporary) as writer:
            last = start
            for sample in self.synthesizer.run(self._samples(shard)):
                for pair in sample.pairs:
                    writer.write(pair)
                rejected += [asdict(rejection) for rejection in sample.rejections]
                counted = Totals()
                counted.count(sample.pairs, sample.rejections)
                totals.merge(counted)
                now = time.perf_counter()
                event = _sample_event(sample.source_id, counted, now - last)
                last = now
                log.write(**event)
                if progress:
                    progress.take(event)
                self._watch_failures(sample, log)
                _check_parent()
        if len(self.out_of_memory) > short:  # without a marker, the next run makes it again
            return
        totals.seconds = time.perf_counter() - start
        totals.counters.update({name: n - before[name] for name, n in self.synthesizer.counters().items()})
        record = {"fingerprint": self.fingerprint, **totals.as_dict(), "rejected": rejected}
        write_json(marker(self.out, shard), record)
        if self.failed_in_shard:
            self.shards_in_doubt.append(shard)
        log.write("shard_finished", shard=shard, pairs=totals.pairs, seconds=round(totals.seconds, 3))

    def _samples(self, shard: int) -> Iterator[Sample]:
        barred = read_barred(self.out)
        for source_id in self.shards.of(shard):
            sample = Sample(source_id)
            if source_id in self.duplicates:
                yield sample.rejected("read", f"the same file as '{self.duplicates[source_id]}'")
            elif source_id in barred:
                yield sample.rejected("read", barred[source_id])
            else:
                yield sample

    def _watch_failures(self, sample: Sample, log: RunLog) -> None:
        failures = [rejection for rejection in sample.rejections if rejection.traceback or rejection.raw]
        if sample.out_of_memory:
            self.out_of_memory.append(sample.source_id)
        for failure in failures:
            log.write(
                "failure",
                source_id=sample.source_id,
                stage=failure.stage,
                reason=failure.reason,
                raw=failure.raw,
                traceback=failure.traceback,
            )
        worked = any(rejection.stage in ("curation", "explain") for rejection in sample.rejections)
        if sample.pairs or (worked and not failures):
            self.failures_in_a_row, self.shards_in_doubt, self.failed_in_shard = 0, [], False
            return
        if not failures or (failures[-1].stage == "read" and not sample.out_of_memory):
            return
        self.failures_in_a_row, self.failed_in_shard = self.failures_in_a_row + 1, True
        if self.failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
            for shard in self.shards_in_doubt:
                marker(self.out, shard).unlink()
            raise RunAborted(
                f"{self.failures_in_a_row} photos in a row failed, the last with '{failures[-1].reason}'; see "
                f"{log.path} for details. {_MORE_MEMORY if sample.out_of_memory else 'Fix the cause'} and rerun the "
                "command: it tries these photos again"
            )

    def _report_memory(self) -> None:
        if not self.out_of_memory:
            return
        count, first = len(self.out_of_memory), self.out_of_memory[0]
        raise RunAborted(
            f"memory ran out at {count} photo{'s' if count > 1 else ''}, the first '{first}', which "
            f"{'are' if count > 1 else 'is'} not done; all other finished shards are kept. {_MORE_MEMORY} and rerun "
            "the command: it tries them again. To finish without them, take them out of the folder; for smaller "
            f"images, start a new run with --max-long-side below {self.synthesizer.settings.max_long_side}"
        )

    def _finish(self) -> RunRecord:
        """Write the files that describe the dataset, if all ranks are done."""
        with FileLock(lock_folder(self.out) / "finish.lock"):
            if self.shards.count_finished(self.out) < len(self.shards.sources):
                return RunRecord(**self.identity)
            totals = read_totals(self.out)
            run = RunRecord(
                **self.identity,
                status="complete",
                fingerprint=self.fingerprint,
                pairs=totals.pairs,
                rejected=totals.rejections,
                made=dict(totals.by_type(totals.accepted + totals.discarded)),
                accepted=dict(totals.by_type(totals.accepted)),
                acceptance=totals.acceptance,
                rejected_at=dict(totals.rejected_at),
                counters=dict(totals.counters),
                seconds=round(totals.seconds, 3),
            )
            with replacing(self.out / "rejected.jsonl") as temporary, temporary.open("w", encoding="utf-8") as file:
                file.writelines(json_lines(read_rejected(self.out)))
            upgrade_shards(self.out)
            write_pair_card(self.out, run)
            if totals.pairs:
                with replacing(self.out / "contact_sheet.png") as temporary:
                    contact_sheet(read_pairs(self.out)).save(temporary, format="PNG")
            run.write(self.out)
            return run


def _check_parent() -> None:
    """Stop a worker whose parent was killed, since another process may resume the run without knowing of it."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        raise RunAborted("the process that started this worker is gone; rerun the command to continue")


def _sample_event(source_id: str, totals: Totals, seconds: float) -> dict[str, Any]:
    return {
        "event": "sample",
        "source_id": source_id,
        "pairs": totals.pairs,
        "accepted": dict(totals.by_type(totals.accepted)),
        "discarded": dict(totals.by_type(totals.discarded)),
        "seconds": round(seconds, 3),
    }


def differences(recorded: dict[str, Any], current: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """
    Yield the dotted names of the entries of `current` whose values differ in `recorded`.

    Args:
        recorded (`dict`): Identity of a recorded run.
        current (`dict`): Identity of this run.
        prefix (`str`, *optional*, defaults to `""`): Beginning of the names, used in recursion.
    """
    for key, value in current.items():
        other = recorded.get(key)
        if isinstance(value, dict) and isinstance(other, dict):
            yield from differences(other, value, f"{prefix}{key}.")
        elif value != other:
            yield f"{prefix}{key}"
