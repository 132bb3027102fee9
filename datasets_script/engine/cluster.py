"""
The synthesis as a step of datatrove's pipelines, for its executors: Slurm, Ray, or local processes (extra: `cluster`).

datatrove also takes any callable of `(data, rank, world_size)` for a step, so that `run` of a single
[`~datasets_script.engine.stages.Stage`] can stand in a pipeline of one's own as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


try:
    from datatrove.data import DocumentsPipeline
    from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor
    from datatrove.executor.base import PipelineExecutor
    from datatrove.pipeline.base import PipelineStep
except ImportError as error:
    raise ImportError("executors need the package datatrove; run `pip install artiagent[cluster]`") from error

from ..utils.errors import UserError
from .run import Run


_EXECUTORS: dict[str, type[PipelineExecutor]] = {
    "local": LocalPipelineExecutor,
    "slurm": SlurmPipelineExecutor,
    "ray": RayPipelineExecutor,
}


class SynthesizeShards(PipelineStep):
    """
    All stages over the shards of one task, which is a rank of the run. Documents that come in are passed on; what is
    made goes to the run's folder.

    Args:
        make_run (`Callable[[int, int], Run]`): Loads the models and opens the run, for a rank and a world size. It is
            pickled, so it must be a function of a module, or a `functools.partial` of one.
    """

    name = "synthesize"
    type = "ARTIAGENT"

    def __init__(self, make_run: Callable[[int, int], Run]) -> None:
        super().__init__()
        self.make_run = make_run

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        if data:
            yield from data
        with self.track_time("task"):
            self.make_run(rank, world_size).execute(show_progress=False)


def run_executor(
    name: str, make_run: Callable[[int, int], Run], tasks: int, logs: Path, options: dict[str, Any]
) -> None:
    """
    Hands a run to an executor; returns when it is done (local, Ray) or queued (Slurm).

    Args:
        name (`str`): `"local"`, `"slurm"` or `"ray"`.
        make_run (`Callable[[int, int], Run]`): See [`SynthesizeShards`].
        tasks (`int`): Ranks of the run, at most as many as shards.
        logs (`Path`): For datatrove's own logs.
        options (`dict`): Further arguments of the executor, such as `time` and `partition` for Slurm.

    Raises:
        UserError: the executor has no such option, needs one more, or cannot use its value.
    """
    # What is done the run's own markers tell: datatrove would skip the tasks of a run with other settings.
    settings = {"logging_dir": str(logs), "skip_completed": False, **options}
    try:
        executor = _EXECUTORS[name](pipeline=[SynthesizeShards(make_run)], tasks=tasks, **settings)
    except TypeError as error:
        raise UserError(f"--executor {name}: {error}") from error
    executor.run()
