"""Search and guidance on a generator with random weights, by the detector of the package in the places of others."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import datasets_script.detection.pixel as pixel
from tests.benchmarks.creatures.autoencoder import fit_encoder
from tests.benchmarks.creatures.detectors import LESSONS, scores_of, trained
from tests.benchmarks.creatures.generator import TRAINED, new_generator
from tests.benchmarks.creatures.parts import best_of_32, guided
from tests.benchmarks.creatures.renderer import render_many
from tests.benchmarks.creatures.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    images = np.stack([one.image for one in render_many(40, 0, "test parts")])
    pipe, folder = new_generator(fit_encoder(images)), tmp_path_factory.mktemp("parts")
    for name in (*TRAINED, "vae"):
        getattr(pipe, name).to(torch.bfloat16)
    pipe.save_pretrained(folder / "generator")
    world = World(folder / "generator", folder / "work", number=3, steps=2, seed=0)
    for name in LESSONS:
        shutil.copytree(Path(pixel.__file__).parent / "embedded", world.work / "detectors" / name)
    return world


def test_the_search_keeps_what_the_scorer_prefers(world, monkeypatch):
    monkeypatch.setattr(best_of_32, "BEST_OF", 2)
    block = best_of_32.run(world)
    candidates = world.pictures("candidates")
    assert candidates.shape == (3, 3, 64, 64, 3)
    # The first candidate is the picture of `base`.
    assert np.array_equal(candidates[:, 0], world.pictures("base"))
    detector = trained(world, "mixture")
    scores = np.stack([scores_of(detector, those) for those in candidates])
    assert (scores_of(detector, candidates[range(3), scores.argmin(1)]) <= scores[:, 0]).all()
    assert list(block["curve"]) == [1, 3]
    assert block["candidates"] == 3
    assert set(block["other_scorers"]) == {"oracle", "hackable"}
    # Random weights draw nothing clean, whoever chooses.
    assert block["artifact_rate"] == 1 and block["relative_reduction"] == 0
    assert (world.work / "best_of_32_mixture.png").exists()


def test_guidance_of_no_strength_draws_the_pictures_of_base(world):
    prompts = [words.prompt for words in world.words]
    unguided = guided.draw_guided(world, "ensemble", 0.0, world.pipe, prompts, world.seeds)
    assert np.array_equal(unguided, world.pictures("base"))


def test_guidance_changes_pictures_and_is_tuned_on_others(world, monkeypatch):
    monkeypatch.setattr(guided, "STRENGTHS", (0.0, 0.4))
    monkeypatch.setattr(guided, "TUNING", 2)
    monkeypatch.setattr(guided, "OTHERS", ("hackable",))
    block = guided.run(world)
    assert list(block["artifact_rate_by_strength"]) == [0.0, 0.4]
    assert block["artifact_rate_by_strength"][0.4]["number"] == 2
    assert set(block["frequency"]) == set(LESSONS)
    other = replace(world, seed=1)
    assert not set(other.seeds) & set(world.seeds)
    drawn = guided.draw_guided(world, "ensemble", 0.4, world.pipe, [world.words[0].prompt], world.seeds[:1])
    assert not np.array_equal(drawn[0], world.pictures("base")[0])
