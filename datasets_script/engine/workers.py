"""Pool of worker processes on this machine. A worker that was killed, for instance for its memory, is restarted."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..utils.faults import DONE, STOPPED, guarded
from ..utils.files import write_json
from .log import LogTail, ProgressLine, log_path
from .plan import RunPlan
from .run import RunAborted
from .shards import Shards, open_shards, read_barred


# A photo is skipped after this many deaths of a worker that was processing it alone; a single one may be chance.
_DEATHS_PER_PHOTO = 2
# After this many deaths with no photo finished in between, the cause is not the photos.
_DEATHS_IN_A_ROW = 6
_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_STOP = 10.0

StartWorker = Callable[[int, bool], BaseProcess]
"""Function that starts the worker of a rank; the second argument asks for batches of one photo."""


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
    Pool of processes, each a rank of one run.

    Args:
        out (`Path`): Folder of the run.
        shards (`Shards`): Sources of the run, in shards.
        start (`Callable[[int, bool], BaseProcess]`): Function that starts a worker, see [`StartWorker`].
        world_size (`int`): Number of workers.
        show_progress (`bool`, *optional*, defaults to `True`): Whether to show one progress bar for all workers.
        command (`str`, *optional*, defaults to `"synthesize"`): What makes the run, for that bar.
    """

    def __init__(
        self,
        out: Path,
        shards: Shards,
        start: StartWorker,
        world_size: int,
        show_progress: bool = True,
        command: str = "synthesize",
    ) -> None:
        self.out, self.shards, self.start, self.world_size = out, shards, start, world_size
        self.show_progress, self.command = show_progress, command
        self.introduced = False
        self.deaths: Counter[str] = Counter()
        self.deaths_in_a_row: Counter[int] = Counter()

    def execute(self) -> int:
        """
        Start all workers and wait for them.

        Returns:
            `int`: 0, or the exit status of the first worker that failed. One that something external has stopped
            leaves the others at work, which may finish theirs; after any other failure the others are stopped.

        Raises:
            RunAborted: Workers keep being killed without finishing any photo.
        """
        done = self.shards.count_finished(self.out)
        progress = ProgressLine(self.command, self.shards.num_tasks, done, self.show_progress)
        workers: list[_Worker] = []
        stopped = DONE
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
                    if status == STOPPED:
                        stopped = status
                    elif status > 0:
                        return status
                    elif status < 0:
                        progress.take_back(len(worker.finished))
                        workers.append(self._replace(worker, signal.Signals(-status).name))
            return stopped
        finally:
            progress.close()
            _stop([worker.process for worker in workers])

    def _start(self, rank: int, one_by_one: bool = False) -> _Worker:
        tail = LogTail(log_path(self.out, rank))  # made first, so that no event is missed
        return _Worker(rank, self.start(rank, one_by_one), tail, one_by_one)

    def _follow(self, worker: _Worker, progress: ProgressLine) -> None:
        for event in worker.tail.read():
            if event["event"] == "start" and not self.introduced and self.show_progress:
                tqdm.write(event["about"], file=sys.stderr)
                self.introduced = True
            elif event["event"] == "shard":
                worker.shard, worker.finished = event["shard"], set(event["restored"])
            elif event["event"] == "shard_finished":
                worker.shard, worker.finished = None, set()
            elif event["event"] == "sample":
                worker.finished.add(event["source_id"])
                self.deaths_in_a_row[worker.rank] = 0
            progress.take(event)

    def _replace(self, worker: _Worker, killed_by: str) -> _Worker:
        """Restart a worker that was killed, and bar its photo if that photo has killed a worker before."""
        suspect = self._suspect(worker)
        self.deaths_in_a_row[worker.rank] += 1
        if self.deaths_in_a_row[worker.rank] >= _DEATHS_IN_A_ROW:
            raise RunAborted(
                f"worker {worker.rank} was killed ({killed_by}) {_DEATHS_IN_A_ROW} times with no photo done in "
                "between, possibly for lack of memory. Finished shards are kept; rerun the command to continue, with "
                "fewer processes if memory is short"
            )
        print(f"\nworker {worker.rank} was killed ({killed_by}) at {suspect!r}, restarting it", file=sys.stderr)
        if suspect and worker.one_by_one:  # in a batch, another photo may be the cause
            self.deaths[suspect] += 1
            if self.deaths[suspect] >= _DEATHS_PER_PHOTO:
                reason = f"killed its worker {self.deaths[suspect]} times ({killed_by})"
                write_json(self.out / "barred.json", {**read_barred(self.out), suspect: reason})
        # With batches of one photo, the next death can be traced to a photo.
        return self._start(worker.rank, one_by_one=True)

    def _suspect(self, worker: _Worker) -> str:
        """Return the photo that a worker was processing, or an empty string."""
        waiting = () if worker.shard is None else self.shards.of(worker.shard)
        return next((task.source_id for task in waiting if task.source_id not in worker.finished), "")


def _stop(processes: Sequence[BaseProcess]) -> None:
    """Stop workers, which is safe at any moment, because unfinished shards are made again."""
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
        plan (`RunPlan`): The run.
        show_progress (`bool`, *optional*, defaults to `True`): Whether to show one progress bar for all workers.

    Returns:
        `int`: 0, or the exit status of the first worker that failed, after stopping the others. The worker has printed
        its error to the standard error.

    Raises:
        UserError: See [`RunPlan.check`].
        RunAborted: Workers keep being killed without finishing any photo.
    """
    sources = plan.check()
    shards = open_shards(plan.out, plan.source, sources, plan.settings)
    start = partial(start_worker, plan)
    return WorkerPool(plan.out, shards, start, plan.processes, show_progress, plan.settings.command).execute()


def start_worker(plan: RunPlan, rank: int, one_by_one: bool) -> BaseProcess:
    """
    Start one of a plan's workers, with its device and its share of the CPU cores.

    Args:
        plan (`RunPlan`): The run.
        rank (`int`): Number of the worker, from 0.
        one_by_one (`bool`): Whether to process one photo at a time.
    """
    plan_of_rank = (plan.one_by_one() if one_by_one else plan).for_rank(rank)
    # Divides what one process would use, which `OMP_NUM_THREADS` limits; with a limit of 1, the pixels are those of a
    # run in one process.
    threads = max(1, torch.get_num_threads() // plan.processes)
    return start_process(plan_of_rank.device, _work, plan_of_rank, rank, threads)


def start_process(device: str | None, target: Callable[..., None], *args: Any) -> BaseProcess:
    """
    Start a process that ends with this one. For a CPU, under Linux, it is forked from a server that has imported the
    libraries: 8 s of one core less for each worker. Drivers of accelerators do not allow for that.

    Args:
        device (`str`, *optional*): Device that it will use.
        target (`Callable[..., None]`): What it does: a function of a module, since it is pickled.
        args: Arguments of `target`.
    """
    context: ForkServerContext | SpawnContext = multiprocessing.get_context("spawn")
    if device == "cpu" and sys.platform == "linux":
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
    process = context.Process(target=_with_variables, args=(dict(os.environ), target, *args), daemon=True)
    process.start()
    return process


def _with_variables(variables: dict[str, str], target: Callable[..., None], *args: Any) -> None:
    # A server keeps the environment of the moment at which it started, perhaps for an earlier run of the same process.
    os.environ.clear()
    os.environ.update(variables)
    target(*args)


def _work(plan: RunPlan, rank: int, num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    sys.exit(guarded(partial(_execute_rank, plan, rank)))


def _execute_rank(plan: RunPlan, rank: int) -> int:
    plan.open(rank, plan.processes).execute(show_progress=False)
    return DONE
