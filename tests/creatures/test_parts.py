"""Search and guidance on a generator with random weights, by the detector of the package in the places of others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import datasets_script.detection.pixel as pixel
from datasets_script.correction.regions import Region
from datasets_script.pairs.storage import read_pairs
from datasets_script.schema.correction import Verdict
from tests.benchmarks.creatures import loras
from tests.benchmarks.creatures.autoencoder import fit_encoder
from tests.benchmarks.creatures.corrected import write_corrected
from tests.benchmarks.creatures.detectors import LESSONS, drawn_words, scores_of, trained
from tests.benchmarks.creatures.effects import JUDGES, WITNESSES
from tests.benchmarks.creatures.generator import TRAINED, new_generator
from tests.benchmarks.creatures.labels import write_labelled
from tests.benchmarks.creatures.oracle_reward import fewer_faults
from tests.benchmarks.creatures.parts import best_of_4_guided, best_of_32, ddpo, guided
from tests.benchmarks.creatures.planting import plant
from tests.benchmarks.creatures.renderer import render_many
from tests.benchmarks.creatures.words import known_words
from tests.benchmarks.creatures.world import World
from tests.helpers.near_images import nearly_equal
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


class Satisfied:
    """A verifier that sees nothing wrong."""

    def __call__(self, images: Sequence[Image.Image], region: Region) -> list[Verdict]:
        return [Verdict(False, 0.0)] * len(images)

    def identity(self) -> dict[str, Any]:
        return {"kind": "satisfied"}


def test_the_search_keeps_what_the_scorer_prefers(world, monkeypatch):
    monkeypatch.setattr(best_of_32, "BEST_OF", 2)
    block = best_of_32.run(world)
    candidates = world.pictures("candidates")
    assert candidates.shape == (3, 3, 64, 64, 3)
    # The first candidate is the picture of `base`.
    assert nearly_equal(candidates[:, 0], world.pictures("base"))
    detector = trained(world, "oracle")
    scores = np.stack([scores_of(detector, those) for those in candidates])
    assert (scores_of(detector, candidates[range(3), scores.argmin(1)]) <= scores[:, 0]).all()
    assert list(block["curve"]) == [1, 3]
    assert block["candidates"] == 3
    assert set(block["other_scorers"]) == {"mixture", "hackable"}
    # Random weights draw nothing clean, whoever chooses.
    assert block["artifact_rate"] == 1 and block["relative_reduction"] == 0
    assert (world.work / "best_of_32_oracle.png").exists()


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
    assert set(block["frequency"]) == set(JUDGES)
    assert set(block["other_guides"]) == {"many_frozen", "ensemble", "hackable"}
    assert block["other_guides"]["hackable"]["strength"] > 0
    other = replace(world, seed=1)
    assert not set(other.seeds) & set(world.seeds)
    drawn = guided.draw_guided(world, "ensemble", 0.4, world.pipe, [world.words[0].prompt], world.seeds[:1])
    assert not np.array_equal(drawn[0], world.pictures("base")[0])


def test_search_and_guidance_together_choose_among_guided_pictures(world, monkeypatch):
    monkeypatch.setattr(guided, "STRENGTHS", (0.0, 0.4))
    monkeypatch.setattr(guided, "TUNING", 1)
    monkeypatch.setattr(best_of_4_guided, "CANDIDATES", 3)
    block = best_of_4_guided.run(world)
    assert world.pictures("candidates_guided").shape == world.pictures("candidates_alone").shape == (3, 3, 64, 64, 3)
    assert nearly_equal(world.pictures("candidates_alone")[:, 0], world.pictures("base"))
    # Random weights draw nothing clean, so that the first strength is as good as the others.
    assert block["strength"] == 0.0 and np.array_equal(*map(world.pictures, ("candidates_guided", "candidates_alone")))
    assert block["artifact_rate"] == block["unguided"]["artifact_rate"] == 1
    assert set(block["frequency"]) == set(WITNESSES)


def test_labelled_pictures_are_other_ones(world):
    (few, first), (many, others) = (drawn_words(world, name) for name in ("labelled", "many_labelled"))
    assert (len(few), len(many)) == (4, 19) and (len(first), len(others)) == (4, 19)
    assert not set(first) & set(others) and not {*first, *others} & set(world.seeds)
    assert {*few, *many} <= set(known_words())


def test_pictures_of_the_generator_and_their_corrections_are_pairs(world, tmp_path):
    flawed = [plant(index, 0, "omission") for index in range(3)]
    pictures, words = np.stack([one.image for one in flawed]), [one.words for one in flawed]
    write_labelled(pictures, words, tmp_path / "labelled")
    write_corrected(world, str(tmp_path / "labelled"), Satisfied(), tmp_path / "data" / "pairs.parquet")
    pairs = list(read_pairs(tmp_path))
    assert [pair.caption for pair in pairs] == [one.prompt for one in words]
    for pair, picture in zip(pairs, pictures, strict=True):
        assert np.array_equal(np.asarray(pair.flawed), picture)
        assert pair.artifacts[0].tool == "none" and 0 < pair.artifacts[0].mask.mean() < 0.9
        assert not np.array_equal(np.asarray(pair.clean), picture)


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
