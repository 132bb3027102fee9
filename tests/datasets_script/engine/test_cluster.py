"""The synthesis under datatrove's executors."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from datasets_script.engine.ledger import read_totals
from datasets_script.utils.errors import UserError


pytest.importorskip("datatrove")

from datasets_script.engine.cluster import SynthesizeShards, run_executor

from ...helpers.engine_runs import SOURCES, make_photos, make_run, rows


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("demo"))


def make_rank(photos: Path, out: Path, rank: int, world_size: int):
    return make_run(photos, out, rank=rank, world_size=world_size)


def test_the_tasks_of_an_executor_are_the_ranks_of_a_run(photos, tmp_path):
    make_run(photos, tmp_path / "whole").execute(show_progress=False)
    out = tmp_path / "out"
    run_executor("local", partial(make_rank, photos, out), 2, tmp_path / "logs", {"workers": 1})
    assert rows(out) == rows(tmp_path / "whole") and (out / "contact_sheet.png").exists()
    assert read_totals(out).sources == len(SOURCES)
    # datatrove does not take another run for this one because it has as many tasks.
    run_executor("local", partial(make_rank, photos, tmp_path / "again"), 2, tmp_path / "logs", {"workers": 1})
    assert rows(tmp_path / "again") == rows(out)


def test_documents_pass_through_the_step(photos, tmp_path):
    step = SynthesizeShards(partial(make_rank, photos, tmp_path))
    assert list(step(iter(["document"]), 2, 4)) == ["document"]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["pairs-00002.parquet"]


def test_an_option_that_an_executor_does_not_know_is_told(tmp_path):
    with pytest.raises(UserError, match="--executor slurm: .*partition"):
        run_executor("slurm", partial(make_rank, tmp_path, tmp_path), 2, tmp_path, {"time": "1:00:00"})
