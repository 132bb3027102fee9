"""Folders of training runs: which recipe they belong to, and the checkpoint to continue from."""

from __future__ import annotations

import pytest

from datasets_script.utils.errors import UserError
from training.run_folder import begin_run, check_run, checkpoints, find_checkpoint, new_model_folder


RECIPE = {"learning_rate": 1e-3, "logging_steps": 10}


def test_a_folder_is_of_one_recipe(tmp_path):
    folder = tmp_path / "run"
    assert begin_run(folder, RECIPE) is None
    assert begin_run(folder, {**RECIPE, "logging_steps": 20}) is None
    with pytest.raises(
        UserError,
        match="--out must be the folder of a run with learning_rate = 0.1, got '.*run' with learning_rate = 0.001",
    ):
        begin_run(folder, {"learning_rate": 0.1}, option="--out")


def test_only_one_process_writes(tmp_path):
    begin_run(tmp_path, RECIPE, writes=False)
    assert not list(tmp_path.iterdir())


def test_a_run_continues_from_its_last_whole_checkpoint(tmp_path):
    begin_run(tmp_path, RECIPE)
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    (tmp_path / "checkpoint-11").mkdir()
    assert begin_run(tmp_path, RECIPE) == find_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


def test_what_a_kill_left_of_a_checkpoint_is_none(tmp_path):
    begin_run(tmp_path, RECIPE)
    for name in ("checkpoint-9", "checkpoint-20", "checkpoint-40.incomplete", "checkpoint-best"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text("{}")
    (tmp_path / "checkpoint-100").mkdir()
    assert begin_run(tmp_path, RECIPE) == tmp_path / "checkpoint-20"
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-20", "checkpoint-100"]
    (tmp_path / "new" / "checkpoint-40.incomplete").mkdir(parents=True)
    assert begin_run(tmp_path / "new", RECIPE) is None


def test_a_folder_is_checked_by_the_part_of_a_recipe_that_is_known(tmp_path):
    check_run(tmp_path, RECIPE, later=["data"])
    assert not list(tmp_path.iterdir())
    begin_run(tmp_path, {**RECIPE, "data": "photos"})
    check_run(tmp_path, {**RECIPE, "logging_steps": 20}, later=["data"])
    with pytest.raises(UserError, match="must be the folder of a run with learning_rate = 0.1, got"):
        check_run(tmp_path, {"learning_rate": 0.1}, later=["data"])
    with pytest.raises(UserError, match="must be the folder of a run with data = None, got '.*' with data = photos"):
        check_run(tmp_path, RECIPE)


def test_checkpoints_of_another_program_are_not_continued(tmp_path):
    (tmp_path / "checkpoint-1").mkdir()
    with pytest.raises(UserError, match="which holds checkpoints of another program; choose another folder"):
        begin_run(tmp_path, RECIPE)


def test_a_new_folder_is_whole_or_absent(tmp_path):
    folder = tmp_path / "model"
    with pytest.raises(RuntimeError), new_model_folder(folder, "OUT") as temporary:
        (temporary / "half").write_text("")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with new_model_folder(folder, "OUT") as temporary:
        (temporary / "config.json").write_text("")
    with pytest.raises(UserError, match="OUT must be a new or empty folder"), new_model_folder(folder, "OUT"):
        pass
    assert [path.name for path in folder.iterdir()] == ["config.json"]
