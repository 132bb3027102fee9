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

from datasets_script.correction.verifiers import PixelVerifier
from datasets_script.detection.pixel.detector import PixelDetector
from datasets_script.utils.seeds import derive_seed
from tests.benchmarks.creatures.annotations import ANNOTATIONS, write_photos
from tests.benchmarks.creatures.corrected import write_corrected
from tests.benchmarks.creatures.labels import write_clean, write_labelled
from tests.benchmarks.creatures.renderer import render_many
from tests.benchmarks.creatures.words import Words, known_words
from tests.benchmarks.creatures.world import World
from tests.benchmarks.learning import artiagent, once
from tests.benchmarks.learning import run as run_python


# Clean renders that artifacts are put into, as a share of the pictures that detectors are scored on, and the pairs of
# each. The ceiling learns from as many pictures.
PHOTOS, PAIRS_EACH = 0.8, 2
# Pictures are shown enlarged twice, to which the details of a creature are as large as those of photos.
LENGTH, STEPS = 128, 1500
# Further labelled pictures, as a multiple of those scored on: 3,200. DiffDoctor's people labelled 2,000 hard cases.
MANY_LABELLED = 6.4
# The whole trunk learns, as in the detector of the package; its statistics stay.
WHOLE_TRUNK = ("--freeze", "trunk_statistics", "--trunk_learning_rate", 3e-4, "--learning_rate", 1e-3)
# As a share of the weight of all pairs: each of their units has a clean image, too.
CLEAN_WEIGHT = 0.4
# Pixels of an eye are more than those of one patch, those of two are not.
_SMALL_PARTS = ("--min-part-patches", 1, "--max-artifacts", 1)
# In less noise, the generator draws every part again as it was.
_CORRUPT = ("corrupt", "--regions", "annotations", "--sigma", "0.9,0.97", "--num-inference-steps", 12)


@dataclass(frozen=True)
class Synthesis:
    """
    Artifacts that are put into clean renders with the generator.

    Args:
        command (`tuple`): Of `artiagent`, with its options.
        photos (`str`, *optional*): Name of the renders.
        share (`float`, *optional*): Their number, as a share of the pictures that detectors are scored on.
        pairs_each (`int`, *optional*): Pairs to make of each.
    """

    command: tuple[str | int, ...]
    photos: str = "photos"
    share: float = PHOTOS
    pairs_each: int = PAIRS_EACH


SYNTHESES = {
    # Of the presets, the one with which most artifacts are visible in so small a model. The noise is for `pair_dpo`.
    "injected": Synthesis(("synthesize", "--preset", "transfer_noise", "--store-noise")),
    "corrupted": Synthesis(_CORRUPT),
    "many_corrupted": Synthesis(_CORRUPT, "many_photos", 3.2, 4),
}


@dataclass(frozen=True)
class Lesson:
    """
    What a detector learns from.

    Args:
        data (`tuple[str, ...]`): Names of its data, of [`source_of`].
        clean_images (`bool`, *optional*, defaults to `True`): Whether it sees the clean half of each pair.
        options (`tuple`, *optional*): Further arguments of the training.
    """

    data: tuple[str, ...]
    clean_images: bool = True
    options: tuple[str | int | float, ...] = ()


LESSONS = {
    # Artifacts injected into clean renders with the generator (`artiagent synthesize`).
    "injected": Lesson(("injected",)),
    # Regions of clean renders that it corrupted (`artiagent corrupt`).
    "corrupted": Lesson(("corrupted",)),
    "mixture": Lesson(("injected", "corrupted")),
    # More of what teaches more; with the whole trunk; with the clean pictures of `balanced`.
    "many_corrupted": Lesson(("many_corrupted",)),
    "many_corrupted_whole": Lesson(("many_corrupted",), options=WHOLE_TRUNK),
    "many_balanced": Lesson(("many_corrupted", "drawn_clean")),
    # The same with pictures that it drew and in which people find nothing, the class balance of DiffDoctor: its clean
    # pictures are softer than reconstructed renders.
    "balanced": Lesson(("injected", "corrupted", "drawn_clean")),
    # Pictures that it drew with the oracle's verdicts, as people would label them: the ceiling.
    "oracle": Lesson(("labelled",)),
    # More of them, and the whole trunk.
    "many_labelled": Lesson(("many_labelled",), options=WHOLE_TRUNK),
    # As many with another trunk.
    "many_second": Lesson(("many_labelled",), options=("--model_name_or_path", "efficientnet_lite1", *WHOLE_TRUNK)),
    # The same frozen: it sees less, and guides better.
    "many_frozen": Lesson(("many_labelled",), options=("--model_name_or_path", "efficientnet_lite1")),
    # A witness for what is trained against that: other labels and another trunk.
    "witness": Lesson(("labelled",), options=("--model_name_or_path", "efficientnet_lite1", *WHOLE_TRUNK)),
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
        *lesson.options,
    )


def source_of(world: World, name: str) -> str:
    """
    Make data that is missing, and return it as a source of `training.train_pixel_detector`.

    Args:
        world (`World`): Settings of the run.
        name (`str`): One of `SYNTHESES`, or `"labelled"`, `"many_labelled"`, `"drawn_clean"` or `"corrected"`.
    """
    data = world.work / "data"
    if name in ("labelled", "many_labelled"):
        return f"benchmark={once(data / name, lambda: _write_labelled(world, name, data / name))}"
    if name == "drawn_clean":
        labelled = source_of(world, "labelled").removeprefix("benchmark=")
        return f"photos={once(data / name, lambda: write_clean(labelled, data / name))},weight={CLEAN_WEIGHT}"
    if name == "corrected":
        labelled = source_of(world, "many_labelled").removeprefix("benchmark=")
        judge, file = PixelVerifier(trained(world, "many_labelled")), data / name / "pairs.parquet"
        return f"pairs={once(file, lambda: write_corrected(world, labelled, judge, file))}"
    made = SYNTHESES[name]
    # A run is complete once it has its card.
    once(data / name / "README.md", lambda: _synthesize(world, made, data / name))
    return f"pairs={data / name}"


def _synthesize(world: World, made: Synthesis, out: Path) -> None:
    photos, number = out.with_name(made.photos), round(made.share * world.number)
    once(photos, lambda: write_photos(render_many(number, world.seed, made.photos), photos))
    command, *options = made.command
    artiagent(
        *(command, photos, out, "--annotations", photos / ANNOTATIONS, "--model", world.generator),
        *("--seed", world.seed, "--pairs-per-image", made.pairs_each, *options, *_SMALL_PARTS),
    )


def drawn_words(world: World, name: str) -> tuple[list[Words], list[int]]:
    """Return the conditions, which the generator knows, and the seeds of labelled pictures, by their data's name."""
    known = known_words()
    order = np.random.default_rng(derive_seed(world.seed, "creatures:labelled")).permutation(len(known))
    few = round(PHOTOS * world.number) * PAIRS_EACH
    numbers = range(few) if name == "labelled" else range(few, few + round(MANY_LABELLED * world.number))
    words = [known[order[number % len(order)]] for number in numbers]
    return words, [derive_seed(world.seed, f"creatures:labelled:{number}") for number in numbers]


def _write_labelled(world: World, name: str, out: Path) -> None:
    """Draw pictures, and write them with the oracle's verdicts."""
    words, seeds = drawn_words(world, name)
    write_labelled(world.draw(world.pipe, [asked.prompt for asked in words], seeds), words, out)
