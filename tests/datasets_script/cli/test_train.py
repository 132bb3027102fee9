"""`artiagent train`: recipes by name, run in a process of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from datasets_script.cli.main import main
from datasets_script.cli.train import run_script
from training.recipe_index import list_recipes

from ...helpers.paths import ROOT


SCRIPT = """\
import signal, sys, time
from pathlib import Path

if sys.argv[-1] == "wait":
    signal.signal(signal.SIGTERM, lambda *_: (Path(sys.argv[-2]).write_text("saved"), sys.exit(7)))
    Path(sys.argv[-2] + ".ready").touch()
    time.sleep(60)
if sys.argv[-1] == "die":
    import os

    os.kill(os.getpid(), signal.SIGKILL)
Path(sys.argv[-1]).write_text(" ".join(sys.argv[1:]))
sys.exit(5)
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    """A training script that the module `training` finds beside its own."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "echo_arguments.py").write_text(SCRIPT)
    (tmp_path / "sitecustomize.py").write_text(
        f"import training\ntraining.__path__.append({str(tmp_path / 'scripts')!r})\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    return "echo_arguments"


def test_recipes_are_listed_with_what_they_need(capsys):
    assert main(["train"]) == 0
    told = capsys.readouterr().out
    for recipe in list_recipes():
        assert f"\n  {recipe.name}\n" in told and recipe.memory in told and recipe.paper in told
        assert recipe.base_model in told


def test_an_unknown_recipe_is_told_with_the_nearest(capsys):
    assert main(["train", "cpu_smal"]) == 2
    assert "got 'cpu_smal'; did you mean 'cpu_small'?" in capsys.readouterr().err


def test_a_recipe_goes_to_its_script_with_the_options_and_its_status_comes_back(script, tmp_path):
    recipe, seen = tmp_path / "mine.yaml", tmp_path / "seen"
    recipe.write_text(f"# script: {script}\n# paper: none\n# memory: a CPU\nmax_steps: 3\n")
    assert main(["train", str(recipe), "--learning_rate", "1e-5", "-v", str(seen)]) == 5
    assert seen.read_text() == f"--config {recipe} --learning_rate 1e-5 -v {seen}"


def test_a_script_that_is_killed_has_the_status_of_a_shell(script, tmp_path):
    assert run_script(script, tmp_path / "mine.yaml", ["die"]) == 128 + signal.SIGKILL


def test_an_end_is_passed_on_and_awaited(script, tmp_path):
    recipe, seen = tmp_path / "mine.yaml", tmp_path / "seen"
    recipe.write_text(f"# script: {script}\n# paper: none\n# memory: a CPU\nmax_steps: 3\n")
    command = [sys.executable, "-m", "datasets_script.cli", "train", str(recipe), str(seen), "wait"]
    process = subprocess.Popen(command, env=os.environ.copy())
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "seen.ready").exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        process.terminate()
        assert process.wait(30) == 7 and seen.read_text() == "saved"
    finally:
        process.kill()
