"""
The synthesis as a step of datatrove's pipelines, for its executors: Slurm, Ray, or local processes (extra: `cluster`).
"""

from __future__ import annotations

from typing import Any


try:
    from datatrove.data import DocumentsPipeline
    from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor
    from datatrove.executor.base import PipelineExecutor
    from datatrove.pipeline.base import PipelineStep
except ImportError as error:
    raise ImportError("executors need the package datatrove; run `pip install artiagent[cluster]`") from error

from ..utils.errors import UserError
from .plan import RunPlan


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
        plan (`RunPlan`): What is to be run. It travels to the tasks, which may begin in another folder, so its paths
            should be absolute.
    """

    name = "synthesize"
    type = "ARTIAGENT"

    def __init__(self, plan: RunPlan) -> None:
        super().__init__()
        self.plan = plan

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        if data:
            yield from data
        with self.track_time("task"):
            self.plan.for_rank(rank).open(rank, world_size).execute(show_progress=False)


def run_executor(name: str, plan: RunPlan, tasks: int, options: dict[str, Any]) -> None:
    """
    Hand a run to an executor; return when it is done (local, Ray) or queued (Slurm). The executor's own logs go to
    `logs/datatrove` in the run's folder.

    Args:
        name (`str`): `"local"`, `"slurm"` or `"ray"`.
        plan (`RunPlan`): What is to be run.
        tasks (`int`): Ranks of the run, at most as many as shards.
        options (`dict`): Further arguments of the executor, such as `time` and `partition` for Slurm.

    Raises:
        UserError: as [`RunPlan.check`], or the executor has no such option, needs one more, or cannot use its value.
    """
    plan = plan.absolute()
    plan.check()
    # What is done the run's own markers tell: datatrove would skip the tasks of a run with other settings.
    settings = {"logging_dir": str(plan.out / "logs" / "datatrove"), "skip_completed": False, **options}
    try:
        executor = _EXECUTORS[name](pipeline=[SynthesizeShards(plan)], tasks=tasks, **settings)
    except TypeError as error:
        raise UserError(f"--executor {name}: {error}") from error
    executor.run()
