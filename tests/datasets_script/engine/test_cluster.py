"""The synthesis under datatrove's executors."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets_script.agents.perception import PerceptionSpec
from datasets_script.engine.ledger import read_totals
from datasets_script.engine.plan import RunPlan
from datasets_script.utils.errors import UserError


pytest.importorskip("datatrove")

from datasets_script.engine.cluster import SynthesizeShards, run_executor

from ...helpers.engine_runs import SETTINGS, SOURCES, make_run, rows


pytestmark = pytest.mark.usefixtures("small_models")


def plan(photos: Path, out: Path) -> RunPlan:
    return RunPlan(photos, out, SETTINGS, PerceptionSpec("annotations"), device="cpu")


def test_the_tasks_of_an_executor_are_the_ranks_of_a_run(photos, tmp_path):
    make_run(photos, tmp_path / "whole").execute(show_progress=False)
    out = tmp_path / "out"
    run_executor("local", plan(photos, out), 2, {"workers": 1})
    assert rows(out) == rows(tmp_path / "whole") and (out / "contact_sheet.png").exists()
    assert read_totals(out).sources == len(SOURCES)
    # datatrove does not take another run for this one because it has as many tasks.
    run_executor(
        "local", plan(photos, tmp_path / "again"), 2, {"workers": 1, "logging_dir": str(out / "logs" / "datatrove")}
    )
    assert rows(tmp_path / "again") == rows(out)


def test_documents_pass_through_the_step(photos, tmp_path):
    step = SynthesizeShards(plan(photos, tmp_path))
    assert list(step(iter(["document"]), 2, 4)) == ["document"]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["pairs-00002.parquet"]


def test_an_option_that_an_executor_does_not_know_is_told(photos, tmp_path):
    with pytest.raises(UserError, match="--executor slurm: .*partition"):
        run_executor("slurm", plan(photos, tmp_path), 2, {"time": "1:00:00"})
