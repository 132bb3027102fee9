"""Search and guidance on a generator with random weights, by the detector of the package in the places of others."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import datasets_script.detection.pixel as pixel
from tests.benchmarks.creatures import loras
from tests.benchmarks.creatures.autoencoder import fit_encoder
from tests.benchmarks.creatures.detectors import LESSONS, scores_of, trained
from tests.benchmarks.creatures.generator import TRAINED, new_generator
from tests.benchmarks.creatures.oracle_reward import fewer_faults
from tests.benchmarks.creatures.parts import best_of_32, ddpo, guided
from tests.benchmarks.creatures.renderer import render_many
from tests.benchmarks.creatures.words import known_words
from tests.benchmarks.creatures.world import World
from training.ddpo import main as train_ddpo


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
    block = guided.run(world)
    assert list(block["artifact_rate_by_strength"]) == [0.0, 0.4]
    assert block["artifact_rate_by_strength"][0.4]["number"] == 2
    assert set(block["frequency"]) == set(LESSONS)
    assert set(block["other_guides"]) == {"oracle", "hackable"}
    assert block["other_guides"]["hackable"]["strength"] > 0
    other = replace(world, seed=1)
    assert not set(other.seeds) & set(world.seeds)
    drawn = guided.draw_guided(world, "ensemble", 0.4, world.pipe, [world.words[0].prompt], world.seeds[:1])
    assert not np.array_equal(drawn[0], world.pictures("base")[0])


def test_a_lora_that_was_trained_with_rewards_is_measured(world, monkeypatch):
    small: dict[str, str | int] = {"num_inference_steps": 2, "prompts_per_step": 1, "group_size": 2, "batch_size": 2}
    small |= {"noisy_steps": 0, "noisy_count": 1, "max_steps": 1, "held_out": 2, "pictures_per_prompt": 1}
    small |= {"lora_rank": 2, "guard_images": 8}
    monkeypatch.setattr(loras, "REAL_IMAGES", 9)
    monkeypatch.setattr(loras, "run_python", lambda *command: train_ddpo([str(word) for word in command[2:]]))
    data = loras.drawn_and_guarded(world)
    lora = loras.train_lora(world, "ddpo_oracle", "ddpo", small, *data, "--rewards", ddpo.ORACLE)
    record = json.loads((lora / "training.json").read_text())
    assert record["steps"] == 1 and record["data"]["prompts"]["count"] + 2 == len(known_words())
    assert loras.ending(lora).keys() == {"steps", "kept_step", "stopped", "guards"}
    assert loras.train_lora(world, "ddpo_oracle", "ddpo", {}, "not read again") == lora


def test_the_oracle_rewards_pictures_without_artifacts():
    renders = render_many(3, 0, "test reward")
    broken = [np.zeros_like(render.image) for render in renders]
    images = [Image.fromarray(image) for image in (*(render.image for render in renders), *broken)]
    prompts = [render.words.prompt for render in renders] * 2
    assert fewer_faults(images, prompts)[:3] == [0, 0, 0] and max(fewer_faults(images, prompts)[3:]) < -1
