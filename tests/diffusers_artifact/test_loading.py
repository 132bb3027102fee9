"""
Ways to load the pipeline: from the installed package, its folder or a Hub repository, the last two in processes
without the package. Each also saves and reloads the pipeline.
"""

import hashlib
import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from diffusers import DiffusionPipeline
from PIL import Image

from diffusers_artifact import ArtifactInjectionPipeline

from ..helpers.local_hub import LocalHub
from ..helpers.paths import ROOT
from ..helpers.tiny_pipelines import save_pipelines, tiny_chroma, tiny_flux, tiny_flux2, tiny_qwen_image, tiny_sd3


MODELS = {
    "flux": tiny_flux,
    "sd3": tiny_sd3,
    "flux2": tiny_flux2,
    "chroma": tiny_chroma,
    "qwen-image": tiny_qwen_image,
}
REPO_ID = "tester/artifact-injection"

# Hides the package, which an editable install makes importable from anywhere.
NOT_INSTALLED = """
import sys

from diffusers import DiffusionPipeline


class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "diffusers_artifact":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, NotInstalled())
RELOAD = {"trust_remote_code": True}


def load(model):
    return DiffusionPipeline.from_pretrained(model, custom_pipeline=CUSTOM_PIPELINE, trust_remote_code=True)
"""

UPLOAD = """
from huggingface_hub import HfApi

HfApi().create_repo(CUSTOM_PIPELINE)
HfApi().upload_folder(repo_id=CUSTOM_PIPELINE, folder_path=FOLDER, allow_patterns="*.py")
"""

IMPORTS = """
import hashlib
import json
import sys

import numpy as np
import torch
from PIL import Image
"""


def report_on(models, load, reload):
    """Save each pipeline in the working folder, load it again, and tell what it makes."""
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    report = {}
    for family, model in models.items():
        load(model).save_pretrained(f"saved/{family}")
        pipe = DiffusionPipeline.from_pretrained(f"saved/{family}", **reload)
        mapping = pipe.mapping_class(targets=(5, 6), references=(9, 10), grid=(4, 4))
        output = pipe(photo, mapping, prompt="a cat", num_inference_steps=2, max_sequence_length=16)
        images = [*output.reconstructions, *output.images]
        report[family] = {
            "module": type(pipe).__module__,
            "sizes": [list(image.size) for image in images],
            "digests": [hashlib.sha256(image.tobytes()).hexdigest() for image in images],
        }
    return report


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Save a tiny checkpoint of each family with its stock pipeline, and return the folders."""
    return save_pipelines(MODELS, tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the package's folder, without the weights, to a place outside Python's path."""
    folder = tmp_path_factory.mktemp("download") / "diffusers_artifact"
    ignored = shutil.ignore_patterns("embedded", "__pycache__")
    return Path(shutil.copytree(ROOT / "diffusers_artifact", folder, ignore=ignored))


@pytest.fixture(scope="module")
def installed(models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Run the installed package on the tiny checkpoints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("installed"))
        return report_on(models, ArtifactInjectionPipeline.from_pretrained, {})


def reporting(report_on: Callable[..., dict]) -> str:
    """Return a program that prints the report of the function `report_on` with `load` and `RELOAD`."""
    call = "print('REPORT' + json.dumps(report_on(json.loads(sys.argv[1]), load, RELOAD)))"
    return "\n".join([IMPORTS, inspect.getsource(report_on), call])


def run(program: str, models: dict[str, str], home: Path, variables: dict[str, str]) -> dict[str, dict]:
    """Run `program` with `home` as working and cache folder, and return its report."""
    process = subprocess.run(
        [sys.executable, "-P", "-c", program, json.dumps(models)],
        cwd=home,
        env={**os.environ, "HF_HOME": str(home), **variables},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.partition("REPORT")[2])


@pytest.mark.parametrize("family", MODELS)
def test_installed_package_makes_a_clean_and_an_artifact_image(installed: dict[str, dict], family: str) -> None:
    report = installed[family]
    assert report["module"] == "diffusers_artifact.pipeline"
    assert report["sizes"] == [[64, 64], [64, 64]]
    assert report["digests"][0] != report["digests"][1]


def test_local_folder_makes_the_same_images(
    models: dict[str, str], source: Path, installed: dict[str, dict], tmp_path: Path
) -> None:
    program = f"CUSTOM_PIPELINE = {str(source)!r}\n" + NOT_INSTALLED + reporting(report_on)
    reports = run(program, models, tmp_path, {})
    for family, report in reports.items():
        assert report["module"] == "diffusers_modules.local.pipeline"
        assert report["digests"] == installed[family]["digests"]


def test_hub_repository_makes_the_same_images(
    models: dict[str, str], source: Path, installed: dict[str, dict], tmp_path: Path
) -> None:
    program = (
        f"FOLDER, CUSTOM_PIPELINE = {str(source)!r}, {REPO_ID!r}\n" + UPLOAD + NOT_INSTALLED + reporting(report_on)
    )
    with LocalHub() as hub:
        reports = run(program, models, tmp_path, hub.environment(tmp_path))
    for family, report in reports.items():
        assert report["module"].startswith("diffusers_modules.")
        assert report["digests"] == installed[family]["digests"]
