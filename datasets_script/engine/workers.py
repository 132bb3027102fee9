"""One worker process for each device of this machine, watched: one that was killed for its memory is started again."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from ..utils.faults import DONE, guarded
from ..utils.files import write_json
from .log import LogTail, ProgressLine, log_path
from .plan import RunPlan
from .run import RunAborted
from .shards import Shards, read_barred, read_sources


# Deaths of its worker, working on it alone, after which a photo is taken for the cause: one may be bad luck.
_DEATHS_PER_PHOTOGRAPH = 2
# So many deaths with no photo finished in between mean that it is not the photos.
_DEATHS_IN_A_ROW = 6
_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_STOP = 10.0

StartWorker = Callable[[int, bool], BaseProcess]
"""Starts the worker of a rank; where the second argument is true, with batches of one photo."""


@dataclass(eq=False)
class _Worker:
    rank: int
    process: BaseProcess
    tail: LogTail
    one_by_one: bool
    shard: int | None = None
    finished: set[str] = field(default_factory=set)


class WorkerPool:
    """
    Runs several processes, each a rank of one run.

    Args:
        out (`Path`): The run's folder.
        shards (`Shards`): Its sources.
        start (`Callable`): Starts one of them.
        world_size (`int`): How many.
        show_progress (`bool`, *optional*, defaults to `True`): Whether to show one line of progress for all.
    """

    def __init__(
        self, out: Path, shards: Shards, start: StartWorker, world_size: int, show_progress: bool = True
    ) -> None:
        self.out, self.shards, self.start, self.world_size = out, shards, start, world_size
        self.show_progress = show_progress
        self.deaths: Counter[str] = Counter()
        self.deaths_in_a_row: Counter[int] = Counter()

    def execute(self) -> int:
        """
        Waits for all workers, showing the progress of all in one line.

        Returns:
            `int`: 0, or the exit status of the first worker that ended with a fault of its own, after stopping the
            others.

        Raises:
            RunAborted: workers keep being killed, whatever the photo.
        """
        done = self.shards.count_finished(self.out)
        progress = ProgressLine(len(self.shards.sources), done, self.show_progress)
        workers: list[_Worker] = []
        try:
            workers += [self._start(rank) for rank in range(self.world_size)]
            while workers:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                for worker in list(workers):
                    status = worker.process.exitcode
                    self._follow(worker, progress)
                    if status is None:
                        continue
                    workers.remove(worker)
                    if status > 0:
                        return status
                    if status < 0:
                        progress.take_back(len(worker.finished))
                        workers.append(self._replace(worker, signal.Signals(-status).name))
            return 0
        finally:
            progress.close()
            _stop([worker.process for worker in workers])

    def _start(self, rank: int, one_by_one: bool = False) -> _Worker:
        tail = LogTail(log_path(self.out, rank))  # made first, so that no event is missed
        return _Worker(rank, self.start(rank, one_by_one), tail, one_by_one)

    def _follow(self, worker: _Worker, progress: ProgressLine) -> None:
        for event in worker.tail.read():
            if event["event"] == "shard":
                worker.shard, worker.finished = event["shard"], set()
            elif event["event"] == "shard_finished":
                worker.shard, worker.finished = None, set()
            elif event["event"] == "sample":
                worker.finished.add(event["source_id"])
                self.deaths_in_a_row[worker.rank] = 0
            progress.take(event)

    def _replace(self, worker: _Worker, killed_by: str) -> _Worker:
        """Starts a worker again that was killed, and bars the photo it was at if that has happened before."""
        suspect = self._suspect(worker)
        self.deaths_in_a_row[worker.rank] += 1
        if self.deaths_in_a_row[worker.rank] >= _DEATHS_IN_A_ROW:
            raise RunAborted(
                f"worker {worker.rank} was killed ({killed_by}) {_DEATHS_IN_A_ROW} times with no photo done in "
                "between; is there too little memory? Finished shards are kept, and the same command continues"
            )
        print(f"\nworker {worker.rank} was killed ({killed_by}) at {suspect!r}, starting it again", file=sys.stderr)
        if suspect and worker.one_by_one:  # in a batch it may have been another
            self.deaths[suspect] += 1
            if self.deaths[suspect] >= _DEATHS_PER_PHOTOGRAPH:
                reason = f"killed its worker {self.deaths[suspect]} times ({killed_by})"
                write_json(self.out / "barred.json", {**read_barred(self.out), suspect: reason})
        # One by one, so that the next death has one photo to blame.
        return self._start(worker.rank, one_by_one=True)

    def _suspect(self, worker: _Worker) -> str:
        """The photo that a worker was at; empty where it was at none."""
        waiting = () if worker.shard is None else self.shards.of(worker.shard)
        return next((name for name in waiting if name not in worker.finished), "")


def _stop(processes: Sequence[BaseProcess]) -> None:
    """A worker can be stopped at any moment: what it has not finished is made again."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + _SECONDS_TO_STOP
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()
        process.join()


def execute_in_processes(plan: RunPlan, show_progress: bool = True) -> int:
    """
    Run a plan in `plan.processes` worker processes on this machine.

    Args:
        plan (`RunPlan`): What is to be run.
        show_progress (`bool`, *optional*, defaults to `True`): Whether to show one line of progress for all.

    Returns:
        `int`: 0, or the exit status of the first worker that ended with a fault of its own, which it has told on the
        standard error; the others are stopped then.

    Raises:
        UserError: as [`RunPlan.check`].
        RunAborted: workers keep being killed, whatever the photo.
    """
    sources = plan.check()
    recorded = plan.out / "sources.jsonl"
    shards = Shards(list(read_sources(plan.out)) if recorded.exists() else sources, plan.settings.shard_size)
    return WorkerPool(plan.out, shards, partial(start_worker, plan), plan.processes, show_progress).execute()


def start_worker(plan: RunPlan, rank: int, one_by_one: bool) -> BaseProcess:
    """Start one of a plan's workers, with a device and its share of the cores."""
    plan_of_rank = (plan.one_by_one() if one_by_one else plan).for_rank(rank)
    # What one process would use, which `OMP_NUM_THREADS` bounds, so that a bound of 1 gives the rows of one process.
    threads = max(1, torch.get_num_threads() // plan.processes)
    # A process that was forked cannot use CUDA.
    process = multiprocessing.get_context("spawn").Process(
        target=_work, args=(plan_of_rank, rank, threads), daemon=True
    )
    process.start()
    return process


def _work(plan: RunPlan, rank: int, num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    sys.exit(guarded(partial(_execute_rank, plan, rank)))


def _execute_rank(plan: RunPlan, rank: int) -> int:
    plan.open(rank, plan.processes).execute(show_progress=False)
    return DONE
