"""
A run: all stages over a folder of photos, written shard by shard, so that it can be stopped at any moment and resumed
by any number of processes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from evaluate_metrics.functional.versions import recorded_versions

from ..figures.sheets import contact_sheets, save_pages
from ..pairs.card import write_pair_card
from ..pairs.old_layout import upgrade_shards
from ..pairs.storage import PairWriter, read_pairs
from ..schema.pair import Rejection
from ..schema.run_record import RUN_FILE, RunRecord
from ..utils.errors import StoppedError, UserError
from ..utils.files import replacing, write_json
from .banner import photos_banner
from .identity import check_continues
from .journal import Journal
from .ledger import Totals, journal_path, json_lines, marker, read_markers, read_rejected, read_totals
from .locks import RunBusyError, holding_rank, lock_folder, working_ranks
from .log import ProgressLine, RunLog
from .shards import SOURCES_FILE, RunMismatchError, Shards, Task, has_begun, has_made_nothing, open_shards, read_barred
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
        out (`Path`): Output folder. An existing run there with the same settings is resumed, and grows by what is
            new in `sources` and in `pairs_per_image`. If it has made no pair, it may also begin again.
        source_folder (`Path`): Folder of the photos.
        sources (`Sequence[str]`): Source ids, in order.
        synthesizer (`Synthesizer`): Chain of stages that makes the pairs.
        rank (`int`, *optional*, defaults to 0): Number of this process, from 0. It makes every `world_size`-th shard.
        world_size (`int`, *optional*, defaults to 1): Number of processes that share the run. It may differ when the
            run is resumed.

    Raises:
        RunMismatchError: The folder holds a run with other settings or versions, with more sources or pairs per
            image, or of other photos.
        RunBusyError: The run would grow while another process works on it.
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
        self.spent: Mapping[str, float] = {}
        """Counters of the synthesizer when the last photo was done."""
        self.record = RunRecord()
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(lock_folder(out) / "start.lock"):
            try:
                self._open(source_folder, sources)
            except RunMismatchError:
                if not has_made_nothing(out):
                    raise
                _clear(out)
                self._open(source_folder, sources)

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

    @property
    def about(self) -> str:
        """Return what the run uses and is about to do, in a few lines."""
        photos = photos_banner(self.shards, self.out, self.synthesizer.settings)
        return "\n".join(filter(None, (self.synthesizer.about, photos)))

    def _open(self, source_folder: Path, sources: Sequence[str]) -> None:
        """Read what an existing run records and check it, or record that of a new or grown one."""
        self.__dict__.pop("identity", None)
        self.shards = open_shards(self.out, source_folder, sources, self.synthesizer.settings)
        new = RunRecord(**self.identity, fingerprint=_hash(self.identity))
        recorded = RunRecord.read(self.out) if (self.out / RUN_FILE).exists() else None
        if recorded and recorded.identity == self.identity and (self.out / SOURCES_FILE).exists():
            # Of another rank that began it just now, too.
            began = recorded.fingerprint or new.fingerprint
            self.record = replace(new, fingerprint=began, license=recorded.license)
            self.shards = Shards.read(self.out, recorded.settings)
        elif has_begun(self.out) or working_ranks(self.out):
            self._write_record(self._continued(recorded, new))
        elif has_made_nothing(self.out):
            _clear(self.out)
            self._write_record(new)
        else:
            raise UserError(
                f"'{self.out}' holds pairs without the records of their run; choose another output folder, or remove "
                "what is in it"
            )

    def _continued(self, recorded: RunRecord | None, new: RunRecord) -> RunRecord:
        """Return the record of a run that has grown, or lost its record."""
        if recorded is not None:
            check_continues(self.out, recorded, self.identity)
            return replace(new, fingerprint=recorded.fingerprint or _hash(recorded.identity), license=recorded.license)
        if any(record["fingerprint"] != new.fingerprint for record in read_markers(self.out)):
            raise RunMismatchError(
                f"'{self.out}' has lost its {RUN_FILE} and holds shards of another run; restore the file, or choose "
                "another output folder. Its shards are as they were"
            )
        return new

    def _write_record(self, record: RunRecord) -> None:
        if working := [rank for rank, _ in working_ranks(self.out)]:
            raise RunBusyError(
                f"'{self.out}' must not grow while another process works on it, as rank {working[0]}; wait for it, or "
                "stop it"
            )
        self.record = record
        self.shards.write(self.out)
        record.write(self.out)

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
            if RunRecord.read(self.out).identity != self.identity:
                raise RunBusyError(
                    f"another process has changed the run in '{self.out}'; rerun the command. Nothing was written"
                )
            progress = None
            if show_progress:
                tqdm.write(self.about, file=sys.stderr)
                progress = ProgressLine(
                    self.synthesizer.settings.command, self.shards.num_tasks, self.shards.count_finished(self.out)
                )
            own = range(self.rank, len(self.shards), self.world_size)
            missing = [shard for shard in own if not marker(self.out, shard).exists()]
            self.spent = dict(self.synthesizer.counters())
            try:
                with self.synthesizer.prepared(self._samples(missing)) as samples:
                    for shard in missing:
                        self._make_shard(shard, samples, log, progress)
            finally:
                if progress:
                    progress.close()
            self._report_memory()
            log.write("finished")
        return self._finish()

    @contextmanager
    def _logging(self) -> Iterator[RunLog]:
        log, package = RunLog(self.out, self.rank), logging.getLogger("datasets_script")
        log.write(
            "start",
            rank=self.rank,
            world_size=self.world_size,
            fingerprint=self.record.fingerprint,
            about=self.about,
        )
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

    def _make_shard(self, shard: int, samples: Iterator[Sample], log: RunLog, progress: ProgressLine | None) -> None:
        self.failed_in_shard, short = False, len(self.out_of_memory)
        pairs = self.out / "data" / f"pairs-{shard:05d}.parquet"
        with (
            Journal(journal_path(self.out, shard)) as journal,
            replacing(pairs) as temporary,
            PairWriter(temporary) as writer,
        ):
            log.write("shard", shard=shard, sources=len(self.shards.of(shard)), restored=list(journal.records))
            if progress:
                progress.restore(len(journal.records))
            totals, rejected = self._make_samples(shard, samples, journal, writer, log, progress)
        if len(self.out_of_memory) > short:  # without a marker, the next run goes on with it
            pairs.unlink()
            return
        record = {"fingerprint": self.record.fingerprint, **totals.as_dict(), "rejected": rejected}
        write_json(marker(self.out, shard), record)
        journal.path.unlink(missing_ok=True)
        if self.failed_in_shard:
            self.shards_in_doubt.append(shard)
        log.write("shard_finished", shard=shard, pairs=totals.pairs, seconds=round(totals.seconds, 3))

    def _make_samples(
        self,
        shard: int,
        samples: Iterator[Sample],
        journal: Journal,
        writer: PairWriter,
        log: RunLog,
        progress: ProgressLine | None,
    ) -> tuple[Totals, list[dict[str, Any]]]:
        """
        Make the photos of a shard that its journal does not hold, which are the next of `samples`; return the counts
        and rejections of all.
        """
        totals, rejected = Totals(), list[dict[str, Any]]()
        tasks, last = self.shards.of(shard), time.perf_counter()
        made = self.synthesizer.finish(islice(samples, len(_missing(tasks, journal))))
        for task in tasks:
            if task.source_id in journal.records:
                record = journal.records[task.source_id]
                writer.write_rows(journal.rows(task.source_id))
                totals.add(record["totals"])
                rejected += record["rejected"]
                continue
            sample = next(made)
            counted, now, counters = Totals(), time.perf_counter(), dict(self.synthesizer.counters())
            counted.count(sample.pairs, sample.rejections)
            counted.seconds = now - last
            # What another thread spends ahead on later photos counts with the photo that is done meanwhile.
            counted.counters.update({name: number - self.spent[name] for name, number in counters.items()})
            last, self.spent = now, counters
            totals.merge(counted)
            rejections = [asdict(rejection) for rejection in sample.rejections]
            rejected += rejections
            # A failed photo is tried again when the shard is; some settings let photos depend on earlier ones.
            done = bool(sample.pairs) or not _failures(sample)
            journaled = done and not self.synthesizer.settings.depends_on_shard
            record = {"totals": counted.as_dict(), "rejected": rejections}
            writer.write(sample.pairs, partial(journal.append, task.source_id, record) if journaled else None)
            event = _sample_event(sample.source_id, counted)
            log.write(**event)
            if progress:
                progress.take(event)
            self._watch_failures(sample, log)
            _check_parent()
        return totals, rejected

    def _samples(self, shards: Iterable[int]) -> Iterator[Sample]:
        """Yield the photos of shards that their journals do not hold."""
        for shard in shards:
            barred = read_barred(self.out)
            with Journal(journal_path(self.out, shard)) as journal:
                tasks = _missing(self.shards.of(shard), journal)
            for task in tasks:
                sample = Sample(task.source_id, variants=task.variants)
                if task.same_as:
                    yield sample.rejected("read", f"the same file as '{task.same_as}'")
                elif task.source_id in barred:
                    yield sample.rejected("read", barred[task.source_id])
                else:
                    yield sample

    def _watch_failures(self, sample: Sample, log: RunLog) -> None:
        failures = _failures(sample)
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
            cause = _MORE_MEMORY if sample.out_of_memory else "Fix the cause"
            raise RunAborted(
                f"{self.failures_in_a_row} photos in a row failed, the last with '{failures[-1].reason}'; see "
                f"{log.path} for details. Finished shards are kept. {cause} and rerun the command: it tries these "
                "photos again"
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
            if self.shards.count_finished(self.out) < self.shards.num_tasks:
                return self.record
            totals = read_totals(self.out)
            run = replace(
                self.record,
                status="complete",
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
            for left_over in (self.out / "shards").glob("*.journal"):
                left_over.unlink()
            upgrade_shards(self.out)
            write_pair_card(self.out, run)
            if totals.pairs:
                save_pages(contact_sheets(read_pairs(self.out)), self.out / "contact_sheet.png")
            run.write(self.out)
            return run


def _missing(tasks: Iterable[Task], journal: Journal) -> list[Task]:
    return [task for task in tasks if task.source_id not in journal.records]


def _check_parent() -> None:
    """Stop a worker whose parent was killed, since another process may resume the run without knowing of it."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        raise RunAborted(
            "the process that started this worker is gone. Finished shards are kept; rerun the command to continue"
        )


def _hash(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _clear(out: Path) -> None:
    """Remove the shards of a run, so that it can begin again."""
    for path in [*(out / "data").glob("pairs-*.parquet"), *(out / "shards").glob("*")]:
        path.unlink()


def _failures(sample: Sample) -> list[Rejection]:
    return [rejection for rejection in sample.rejections if rejection.traceback or rejection.raw]


def _sample_event(source_id: str, totals: Totals) -> dict[str, Any]:
    return {
        "event": "sample",
        "source_id": source_id,
        "pairs": totals.pairs,
        "accepted": dict(totals.by_type(totals.accepted)),
        "discarded": dict(totals.by_type(totals.discarded)),
        "retries": totals.counters["vlm_retries"],
        "seconds": round(totals.seconds, 3),
    }
