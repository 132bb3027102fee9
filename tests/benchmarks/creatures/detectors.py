"""
Detectors of a generator's artifacts, trained by the recipe `pixel_cpu_small`, and the data that they learn from.

Data and detectors are made when they are first asked for, and kept in the folder of results.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from datasets_script.detection.pixel.detector import PixelDetector
from datasets_script.utils.seeds import derive_seed
from tests.benchmarks.creatures.annotations import ANNOTATIONS, write_photos
from tests.benchmarks.creatures.labels import write_labelled
from tests.benchmarks.creatures.renderer import Render, render_many
from tests.benchmarks.creatures.words import known_words
from tests.benchmarks.creatures.world import World
from tests.benchmarks.learning import artiagent, once
from tests.benchmarks.learning import run as run_python


# Clean renders that artifacts are put into, as a share of the pictures that detectors are scored on, and the pairs of
# each. The ceiling learns from as many pictures.
PHOTOS, PAIRS_EACH = 0.8, 2
# Pictures are shown enlarged twice, to which the details of a creature are as large as those of photos.
LENGTH, STEPS = 128, 1500
# Pixels of an eye are more than those of one patch, those of two are not.
_MANY = ("--pairs-per-image", PAIRS_EACH, "--min-part-patches", 1, "--max-artifacts", 1)
COMMANDS: dict[str, tuple[str | int, ...]] = {
    # Of the presets, the one with which most artifacts are visible in so small a model. The noise is for `pair_dpo`.
    "injected": ("synthesize", "--preset", "transfer_noise", "--store-noise"),
    # In less noise, it draws every part again as it was.
    "corrupted": ("corrupt", "--regions", "annotations", "--sigma", "0.9,0.97", "--num-inference-steps", 12),
}


@dataclass(frozen=True)
class Lesson:
    """
    What a detector learns from.

    Args:
        data (`tuple[str, ...]`): Names of its data: `"injected"`, `"corrupted"` or `"labelled"`.
        clean_images (`bool`, *optional*, defaults to `True`): Whether it sees the clean half of each pair.
    """

    data: tuple[str, ...]
    clean_images: bool = True


LESSONS = {
    # Artifacts injected into clean renders with the generator (`artiagent synthesize`).
    "injected": Lesson(("injected",)),
    # Regions of clean renders that it corrupted (`artiagent corrupt`).
    "corrupted": Lesson(("corrupted",)),
    "mixture": Lesson(("injected", "corrupted")),
    # Pictures that it drew with the oracle's verdicts, as people would label them: the ceiling.
    "oracle": Lesson(("labelled",)),
    # Never sees a clean image, so it calls much of every picture an artifact: known to be hackable.
    "hackable": Lesson(("injected",), clean_images=False),
}


def trained(world: World, name: str) -> PixelDetector:
    """
    Load a detector, and train it if it is missing.

    Args:
        world (`World`): Settings of the run.
        name (`str`): One of `LESSONS`.
    """
    out = world.work / "detectors" / name
    once(out / "training.json", partial(_train, world, LESSONS[name], out))
    return PixelDetector.from_pretrained(str(out))


def scores_of(detector: PixelDetector, pictures: np.ndarray) -> np.ndarray:
    """Return a detector's scores, in [0, 1], of pictures of shape `(batch, 64, 64, 3)`, `uint8`."""
    # One after the other: the maps of thousands of pictures would fill the memory.
    found = detector.stream(Image.fromarray(picture) for picture in pictures)
    return np.array([float(one.score or 0.0) for one in found])


def _train(world: World, lesson: Lesson, out: Path) -> None:
    run_python(
        *("-m", "training.train_pixel_detector", "--config", "pixel_cpu_small"),
        *("--seed", world.seed, "--length", LENGTH, "--max_steps", STEPS, "--eval_steps", 250, "--save_steps", 250),
        *("--clean_images", str(lesson.clean_images).lower()),
        *("--sources", *(source_of(world, name) for name in lesson.data)),
        *("--output_dir", out),
    )


def source_of(world: World, name: str) -> str:
    """Make data that is missing, and return it as a source of `training.train_pixel_detector`."""
    data = world.work / "data"
    if name == "labelled":
        return f"benchmark={once(data / name, lambda: _draw_labelled(world, data / name))}"
    photos = once(data / "photos", lambda: write_photos(_renders(world), data / "photos"))
    command, *options = COMMANDS[name]
    made = ("--annotations", photos / ANNOTATIONS, "--model", world.generator, "--seed", world.seed)
    # A run is complete once it has its card.
    once(data / name / "README.md", lambda: artiagent(command, photos, data / name, *options, *_MANY, *made))
    return f"pairs={data / name}"


def _renders(world: World) -> list[Render]:
    return render_many(_photos(world), world.seed, "photos")


def _photos(world: World) -> int:
    return round(PHOTOS * world.number)


def _draw_labelled(world: World, out: Path) -> None:
    """Draw pictures of conditions that the generator knows, and write them with the oracle's verdicts."""
    known = known_words()
    order = np.random.default_rng(derive_seed(world.seed, "creatures:labelled")).permutation(len(known))
    words = [known[order[index % len(order)]] for index in range(_photos(world) * PAIRS_EACH)]
    seeds = [derive_seed(world.seed, f"creatures:labelled:{index}") for index in range(len(words))]
    pictures = world.draw(world.pipe, [asked.prompt for asked in words], seeds)
    write_labelled(pictures, words, out)
