"""The wheel holds all that the packages need, and works where there is no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from .helpers.paths import ROOT


PACKAGES = ("diffusers_artifact", "datasets_script", "evaluate_metrics", "hub_cards", "training")

# What is for readers of the repository alone: guides, and the cards of what is published from it.
NOT_SHIPPED = (
    *(f"{package}/README.md" for package in PACKAGES),
    *("datasets_script/*/README.md", "hub_cards/datasets/*.md", "hub_cards/embedded_flux.*", "hub_cards/demo.jpg"),
    "*.ipynb",
)


def tracked(*folders: str) -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *folders]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).exists()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    # A copy: building in the checkout would take what an earlier build has left there.
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in tracked(*PACKAGES, "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(out), str(source))
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with nothing in it but what the wheel holds."""
    folder = tmp_path_factory.mktemp("installed")
    pip("install", "--no-compile", "--target", str(folder), str(wheel))
    return folder


def pip(*arguments: str) -> None:
    options = ("--no-deps", "--no-index", "--quiet", "--disable-pip-version-check")
    done = subprocess.run(
        [sys.executable, "-m", "pip", arguments[0], *options, *arguments[1:]], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def run_installed(installed: Path, work: Path, arguments: Sequence[str]) -> str:
    """What Python prints that sees the installed folder and the dependencies, but not the checkout."""
    paths = [str(installed), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
    # Without `site` there is no `.pth` file, through which an editable installation would find the checkout.
    command = [sys.executable, "-S", *arguments]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_every_file_of_the_packages(wheel):
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {name for name in tracked(*PACKAGES) if not any(fnmatchcase(name, pattern) for pattern in NOT_SHIPPED)}
    assert shipped == expected
    assert {f"{package}/py.typed" for package in PACKAGES} <= shipped
    for name in (
        "datasets_script/demo/annotations.json",
        "datasets_script/evaluation/published.json",
        "diffusers_artifact/embedded/transformer/diffusion_pytorch_model.safetensors",
        "evaluate_metrics/miou/README.md",
        "hub_cards/templates/model.md",
        "training/chat_templates/llava.jinja",
        "training/recipes/sft_vlm/cpu_small.yaml",
    ):
        assert name in shipped


def test_a_metric_loads_and_recipes_are_listed(installed, tmp_path):
    code = """
import evaluate, training.recipe_index as index
from evaluate_metrics import metric_path
metric = evaluate.load(metric_path("miou"))
print(metric.name, len(index.list_recipes()), index.__file__, metric_path("miou"), sep="\\n")
"""
    name, recipes, *files = run_installed(installed, tmp_path, ["-c", code]).splitlines()
    assert name == "miou" and int(recipes) == len(list((ROOT / "training" / "recipes").rglob("*.yaml")))
    assert all(Path(file).is_relative_to(installed) for file in files)


def test_the_command_line_tells_its_version(wheel, installed, tmp_path):
    printed = run_installed(installed, tmp_path, ["-m", "datasets_script.cli", "--version"])
    assert wheel.name.split("-")[1] in printed.split()
