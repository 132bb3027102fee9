"""A held photo gives the images of the pipeline that computes targets, for the price of the targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffusers_artifact import ArtifactInjectionOutput, ArtifactInjectionPipeline, HeldPhoto, PatchMapping
from diffusers_artifact.choices import Confinement

from ..helpers.near_images import nearly_equal
from ..helpers.tiny_pipelines import tiny_flux, tiny_qwen_image, tiny_sd3


GRID = (6, 7)
EYE = PatchMapping((8, 9), (31, 32), GRID, ("duplication",) * 2)
HAND = PatchMapping((26, 27, 33, 34, 40), (1, 2, 8, 9, 1), GRID, ("omission",) * 5)
EMPTY = PatchMapping.empty(GRID)
FAMILIES: dict[str, Callable[..., Any]] = {
    "flux": tiny_flux,
    "sd3.5": tiny_sd3,  # two attentions in some blocks
    "qwen": tiny_qwen_image,  # a rotary table of the length of the row
}
SETTINGS: dict[str, Any] = {"num_inference_steps": 3, "solver": "fireflow", "allow_distilled": True}


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (GRID[0] * 16, GRID[1] * 16, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def pipeline(name: str) -> ArtifactInjectionPipeline:
    parts = {part: value for part, value in FAMILIES[name]().components.items() if value is not None}
    pipe = ArtifactInjectionPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def is_equal(first: Image.Image, second: Image.Image) -> bool:
    return np.array_equal(np.asarray(first), np.asarray(second))


@pytest.mark.parametrize("name", FAMILIES)
def test_artifacts_are_those_of_the_pipeline(name: str, photo: Image.Image) -> None:
    pipe = pipeline(name)
    held = HeldPhoto(pipe, photo, transfer_noise=True, value_steps=2, **SETTINGS)
    # What a model with random weights changes need not be visible.
    confine: Confinement = "visible" if name == "flux" else "pixel"
    settings = SETTINGS | {"compute": "target", "confine": confine, "transfer_noise": True, "value_steps": 2}
    for mappings in ([EYE], [HAND, EMPTY, EYE]):
        of_pipeline = pipe(photo, mappings, **settings)
        assert isinstance(of_pipeline, ArtifactInjectionOutput)
        made = held.inject(mappings, confine)
        assert is_equal(held.clean, of_pipeline.reconstructions[0])
        for image, expected in zip(made.images, of_pipeline.images, strict=True):
            assert nearly_equal(image, expected)
        # Four evaluations each of the inversion and of the clean row are spared.
        assert made.token_evaluations == pytest.approx(of_pipeline.token_evaluations - 8)
    assert is_equal(made.images[1], held.clean) and not is_equal(made.images[0], held.clean)


def test_an_artifact_leaves_nothing_behind(photo: Image.Image) -> None:
    pipe = pipeline("flux")
    processors = dict(pipe.transformer.attn_processors)
    held = HeldPhoto(pipe, photo, **SETTINGS)
    first = held.inject([EYE], confine="latent").images[0]
    held.inject([HAND], confine="pixel")
    assert is_equal(held.inject([EYE], confine="latent").images[0], first)
    assert dict(pipe.transformer.attn_processors) == processors and held.num_bytes > 0


def test_a_mapping_of_another_grid_is_refused(photo: Image.Image) -> None:
    held = HeldPhoto(pipeline("flux"), photo, **SETTINGS)
    with pytest.raises(ValueError, match=r"`mappings` must be one or more of grid \(6, 7\), got \(7, 6\)"):
        held.inject([PatchMapping.empty((7, 6))])
    with pytest.raises(ValueError, match="got none"):
        held.inject([])
    assert torch.get_num_threads() == 1
