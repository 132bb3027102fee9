"""
The synthesis as a datatrove pipeline step, for datatrove's executors: Slurm, Ray, or local processes (extra:
`cluster`).
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
    Pipeline step that runs all stages over the shards of one task, which is a rank of the run. Incoming documents are
    passed on; pairs are written to the run's folder.

    Args:
        plan (`RunPlan`): The run. Its paths should be absolute, because a task may start in another folder.
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
    Run a plan on an executor; return when it is done (local, Ray) or queued (Slurm). The executor's own logs go to
    `logs/datatrove` in the run's folder.

    Args:
        name (`str`): `"local"`, `"slurm"` or `"ray"`.
        plan (`RunPlan`): The run.
        tasks (`int`): Number of tasks, each a rank of the run. More tasks than shards leave some without work.
        options (`dict`): Further arguments of the executor, such as `time` and `partition` for Slurm.

    Raises:
        UserError: See [`RunPlan.check`]; or an option is unknown, missing, or of a wrong type.
    """
    plan = plan.absolute()
    plan.check()
    # The run's own markers tell what is finished: datatrove would also skip tasks of a run with other settings.
    settings = {"logging_dir": str(plan.out / "logs" / "datatrove"), "skip_completed": False, **options}
    try:
        executor = _EXECUTORS[name](pipeline=[SynthesizeShards(plan)], tasks=tasks, **settings)
    except TypeError as error:
        raise UserError(f"--executor {name}: {error}") from error
    executor.run()
