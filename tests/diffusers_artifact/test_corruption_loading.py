"""Ways to load the corruption pipeline: from the installed package, or its file without the package."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from diffusers_artifact import ArtifactCorruptionPipeline

from ..helpers.tiny_pipelines import save_pipelines, tiny_flux, tiny_sdxl
from .test_loading import NOT_INSTALLED, reporting, run
from .test_loading import source as source  # a fixture


MODELS = {"flux": tiny_flux, "sdxl": tiny_sdxl}


def report_on(models, load, reload):
    """Save each pipeline in the working folder, load it again, and tell what it makes."""
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    mask = np.zeros((64, 64), dtype=bool)
    mask[16:40, 24:48] = True
    report = {}
    for family, model in models.items():
        load(model).save_pretrained(f"saved/{family}")
        pipe = DiffusionPipeline.from_pretrained(f"saved/{family}", **reload)
        output = pipe(
            *(photo, mask, "a cat"),
            method=["proposed", "rotate"],
            step=30,
            num_inference_steps=4,
            renoise=pipe.renoise_class(iterations=1) if family == "sdxl" else None,
            generator=torch.Generator().manual_seed(0),
        )
        images = [*output.reconstructions, *output.images]
        report[family] = {
            "module": type(pipe).__module__,
            "sizes": [list(image.size) for image in images],
            "digests": [hashlib.sha256(image.tobytes()).hexdigest() for image in images],
        }
    return report


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Save a tiny checkpoint of each kind with its stock pipeline, and return the folders."""
    return save_pipelines(MODELS, tmp_path_factory.mktemp("checkpoints"))


def test_the_file_makes_the_images_of_the_package(
    models: dict[str, str], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("installed", "copied"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "installed")
    installed = report_on(models, ArtifactCorruptionPipeline.from_pretrained, {})
    program = f"CUSTOM_PIPELINE = {str(source / 'pipeline_corruption.py')!r}\n" + NOT_INSTALLED
    copied = run(program + reporting(report_on), models, tmp_path / "copied", {})
    for family in MODELS:
        assert installed[family]["module"] == "diffusers_artifact.pipeline_corruption"
        assert copied[family]["module"] == "diffusers_modules.local.pipeline_corruption"
        assert installed[family]["sizes"] == [[64, 64]] * 3
        assert len(set(installed[family]["digests"])) == 3
        assert copied[family]["digests"] == installed[family]["digests"]
