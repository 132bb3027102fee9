"""The loaded corruption pipeline, with models that take text: a flow transformer and U-Nets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets_script.engine.corruptor import CorruptionJob, Corruptor
from datasets_script.engine.loading import ModelLoadError
from datasets_script.engine.settings import CorruptionRunSettings, CorruptionSettings

from ...helpers.tiny_pipelines import tiny_flux, tiny_sd, tiny_sdxl


SIDE = 64
SETTINGS = CorruptionSettings(num_inference_steps=2, confine="none")
MODELS: dict[str, Callable] = {"flux": tiny_flux, "sd": tiny_sd, "sdxl": tiny_sdxl}


@pytest.fixture(scope="module", params=MODELS)
def corruptor(request, tmp_path_factory) -> Corruptor:
    folder = tmp_path_factory.mktemp(request.param)
    MODELS[request.param]().save_pretrained(folder)
    return Corruptor(str(folder), SETTINGS, seed=1, device="cpu")


def job(corruptor: Corruptor, index: int, method: str = "proposed") -> CorruptionJob:
    rng = np.random.default_rng(index)
    photo = Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    masks = [np.zeros((SIDE, SIDE), dtype=bool) for _ in range(2)]
    masks[0][:24, :24] = masks[1][40:, 32:] = True
    (caption,) = corruptor.encode([f"a cat on chair {index}"])
    assert caption is not None
    return CorruptionJob(photo, masks, [2 * index, 2 * index + 1], method, 0.6, caption)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=int)


def test_photos_of_several_methods_are_made_as_alone(corruptor):
    jobs = [job(corruptor, 0), job(corruptor, 1, "rotate"), job(corruptor, 2)]
    together = corruptor.inject(jobs)
    assert corruptor.num_function_evaluations > 0 and corruptor.token_evaluations > 0
    for one, made in zip(jobs[1:], together[1:], strict=True):
        (alone,) = corruptor.inject([one])
        assert np.abs(pixels(alone.clean) - pixels(made.clean)).max() <= 2
        for first, second in zip(alone.flawed, made.flawed, strict=True):
            assert np.abs(pixels(first) - pixels(second)).max() <= 2
            assert not np.array_equal(pixels(first), pixels(made.clean))
    assert len({made.flawed[0].tobytes() for made in together}) == len(jobs)


def test_a_variant_does_not_depend_on_the_others(corruptor):
    whole = job(corruptor, 0)
    (made,), (half,) = corruptor.inject([whole]), corruptor.inject([whole.part(slice(1, None))])
    assert len(half.flawed) == 1 and np.abs(pixels(half.flawed[0]) - pixels(made.flawed[1])).max() <= 2


def test_it_says_what_it_does(corruptor):
    assert corruptor.solver == ("midpoint" if corruptor.pipeline.unet is None else "ddim")
    assert corruptor.about == f"corruption: proposed at sigma 0.345, 2 steps of {corruptor.solver}"


def test_a_folder_without_a_model_is_refused(tmp_path: Path):
    with pytest.raises(ModelLoadError, match="`model` must be 'embedded', a folder with a checkpoint"):
        Corruptor(str(tmp_path), SETTINGS, device="cpu")


def test_evaluations_grow_with_the_level_and_the_pairs():
    def evaluations(sigma: float, pairs: int) -> int:
        corruption = CorruptionSettings(sigmas=(sigma,), num_inference_steps=10, solver="euler")
        return Corruptor.evaluations(CorruptionRunSettings(corruption=corruption, pairs_per_image=pairs))

    assert evaluations(1.0, 1) == 30 and evaluations(1.0, 2) == 40
    assert 0 < evaluations(0.5, 1) < 30
