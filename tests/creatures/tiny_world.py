"""A world with a generator of random weights, and detectors in the places of others."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch

import datasets_script.detection.pixel as pixel
from tests.benchmarks.creatures import loras
from tests.benchmarks.creatures.autoencoder import fit_encoder
from tests.benchmarks.creatures.detectors import LESSONS
from tests.benchmarks.creatures.generator import TRAINED, new_generator
from tests.benchmarks.creatures.parts import failures
from tests.benchmarks.creatures.renderer import render_many
from tests.benchmarks.creatures.world import World
from tests.helpers.tiny_detectors import red_detector


def tiny_world(folder: Path, number: int, steps: int) -> World:
    """Make a world in a folder. The guards are others than the detectors that are trained against."""
    images = np.stack([one.image for one in render_many(40, 0, "tiny world")])
    pipe = new_generator(fit_encoder(images))
    for name in (*TRAINED, "vae"):
        getattr(pipe, name).to(torch.bfloat16)
    pipe.save_pretrained(folder / "generator")
    world = World(folder / "generator", folder / "work", number=number, steps=steps, seed=0)
    for name in LESSONS:
        shutil.copytree(Path(pixel.__file__).parent / "embedded", world.work / "detectors" / name)
    for name in (loras.GUARD, failures.GUARD):
        red_detector().save_pretrained(world.work / "detectors" / name)
    return world
