"""The wheel holds all that the packages need, and works where there is no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from .helpers.code_blocks import blocks
from .helpers.paths import ROOT


PACKAGES = ("diffusers_artifact", "datasets_script", "evaluate_metrics", "hub_cards", "training")

# What is for readers of the repository alone: guides, notebooks, and the cards of what is published from it.
NOT_SHIPPED = (
    *(f"{package}/README.md" for package in PACKAGES),
    *("hub_cards/datasets/*.md", "hub_cards/embedded_flux.*", "hub_cards/demo.jpg", "hub_cards/fixed.jpg"),
    *("*/notebooks/*.ipynb", "datasets_script/machine_errors.md"),
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


@dataclass(frozen=True)
class Environment:
    """
    A virtual environment that the wheel is installed into.

    Attributes:
        packages (`Path`): Where its packages lie.
        programs (`Path`): Where `python` and `artiagent` lie.
    """

    packages: Path
    programs: Path

    def run(self, work: Path, program: str, *arguments: str) -> str:
        """Run a program of the environment in a folder, and return what it prints."""
        own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [str(self.programs / program), *arguments]
        done = subprocess.run(command, cwd=work, env=own, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Environment:
    """An environment with nothing in it but the wheel; it borrows the dependencies of the one that runs the tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    base = {"base": str(folder), "platbase": str(folder)}
    environment = Environment(*(Path(sysconfig.get_path(kind, "venv", base)) for kind in ("purelib", "scripts")))
    pip("install", "--no-compile", str(wheel), python=environment.programs / "python")
    # A `.pth` file adds folders after the environment's own, and ignores the `.pth` files in them: an editable
    # installation of the checkout stays out of sight.
    borrowed = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    (environment.packages / "borrowed.pth").write_text("\n".join(borrowed))
    return environment


def pip(command: str, *arguments: str, python: Path | str = sys.executable) -> None:
    options = ("--no-deps", "--no-index", "--quiet", "--disable-pip-version-check")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), command, *options, *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_every_file_of_the_packages(wheel):
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {name for name in tracked(*PACKAGES) if not any(fnmatchcase(name, pattern) for pattern in NOT_SHIPPED)}
    assert shipped == expected
    assert {f"{package}/py.typed" for package in PACKAGES} <= shipped
    for name in (
        "datasets_script/demo/annotations.json",
        "datasets_script/detection/pixel/embedded/model.safetensors",
        "datasets_script/detection/pixel/embedded/README.md",
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
    name, recipes, *files = installed.run(tmp_path, "python", "-c", code).splitlines()
    assert name == "miou" and int(recipes) == len(list((ROOT / "training" / "recipes").rglob("*.yaml")))
    assert all(Path(file).is_relative_to(installed.packages) for file in files)


def test_the_first_python_of_the_readme_makes_its_images(installed, tmp_path):
    code = blocks("README.md", "python")[0].code
    places = "import diffusers_artifact; print(diffusers_artifact.__file__)"
    (place,) = installed.run(tmp_path, "python", "-c", f"{code}\n{places}").splitlines()
    assert Path(place).is_relative_to(installed.packages)
    clean, artifact = (Image.open(tmp_path / f"{name}.png") for name in ("clean", "artifact"))
    assert clean.size == artifact.size == (256, 256)
    assert ImageChops.difference(clean, artifact).getbbox()


def test_the_command_line_tells_its_version(wheel, installed, tmp_path):
    assert wheel.name.split("-")[1] in installed.run(tmp_path, "artiagent", "--version").split()
