"""Each metric's folder as a Space: loaded by name in clean processes, and with what its app needs to be installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import metadata_load
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from evaluate_metrics import METRICS, metric_path

from ..helpers.local_hub import LocalHub
from ..helpers.paths import ROOT


LOAD = """
import json, sys
import evaluate

print(json.dumps([evaluate.load(name).name for name in sys.argv[1:]]))
"""


def load_clean(names: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHONPATH"))}
    return subprocess.run(
        [sys.executable, "-c", LOAD, *names],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def copies(tmp_path) -> Path:
    """A folder that holds the folders of the metrics and nothing else."""
    for name in METRICS:
        shutil.copytree(metric_path(name), tmp_path / "copies" / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "copies"


def test_copies_of_the_folders_load_offline(copies, tmp_path):
    offline = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    done = load_clean([f"./{name}" for name in METRICS], copies, offline)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == list(METRICS)


def test_spaces_load_by_name(copies, tmp_path):
    (tmp_path / "empty").mkdir()
    with LocalHub() as hub:
        for name in METRICS:
            hub.create_repository("space", f"tester/{name}")
            files = {path.name: path.read_bytes() for path in (copies / name).iterdir()}
            hub.commit("space", f"tester/{name}", files, [])
        names = [f"tester/{name}" for name in METRICS]
        done = load_clean(names, tmp_path / "empty", hub.environment(tmp_path / "home"))
        assert done.returncode == 0, done.stderr
        assert any("/spaces/tester/miou/" in request for request in hub.requests)
    assert json.loads(done.stdout) == list(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_a_space_installs_what_its_app_imports(name):
    folder = Path(metric_path(name))
    front_matter = metadata_load(folder / "README.md") or {}
    assert (folder / front_matter["app_file"]).is_file()
    (requirement,) = map(Requirement, (folder / "requirements.txt").read_text().splitlines())
    # `evaluate`, which the app imports first, is in no dependency of ours but this extra.
    assert requirement.name == "artiagent" and "evaluate" in requirement.extras
    assert ("css" in requirement.extras) == (name == "css")
    # A Space has Python 3.10 unless its card asks for another.
    assert front_matter["python_version"] in SpecifierSet(">=3.11")
