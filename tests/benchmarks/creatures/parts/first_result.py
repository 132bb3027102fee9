"""
Do synthetic artifacts teach a detector the generator's own?

Each source trains a pixel detector with the recipe `pixel_cpu_small`: artifacts that were injected into clean renders
with this generator (`artiagent synthesize`), regions that it corrupted (`artiagent corrupt`), both, and pictures that
it drew with the oracle's verdicts, as people would label them. Each is scored on the pictures of `base`, which none
of them has seen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datasets_script.detection.pixel.detector import PixelDetector
from datasets_script.utils.seeds import derive_seed
from evaluate_metrics.functional.ranking import image_ranking
from tests.benchmarks.creatures.annotations import ANNOTATIONS, write_photos
from tests.benchmarks.creatures.labels import write_labelled
from tests.benchmarks.creatures.measures import judge_all
from tests.benchmarks.creatures.renderer import render_many
from tests.benchmarks.creatures.words import all_words, is_held_out
from tests.benchmarks.creatures.world import World
from tests.benchmarks.learning import artiagent, once
from tests.benchmarks.learning import run as run_python


# Clean renders that artifacts are put into, and as many pictures for the ceiling.
PHOTOS, PAIRS_EACH = 400, 2
# Pixels of an eye are more than those of one patch, those of two are not.
_MANY: tuple[str | int, ...] = (
    "--pairs-per-image",
    PAIRS_EACH,
    "--min-part-patches",
    1,
    "--max-artifacts",
    1,
    "--annotations",
)


def run(world: World) -> dict[str, Any]:
    """Make the data, train a detector on each kind and score it."""
    pictures = world.pictures("base")
    flawed = [int(verdict.has_artifact) for verdict in judge_all(pictures, world.words)]
    blocks = {}
    for name, sources in _sources(world).items():
        detector = PixelDetector.from_pretrained(_train(world, name, sources))
        scores = [float(found.score or 0.0) for found in detector([Image.fromarray(picture) for picture in pictures])]
        ranking = image_ranking(scores, flawed)
        blocks[name] = {
            "auc_vs_oracle": round(ranking["auroc"], 4),
            "auc_vs_oracle_interval": [round(limit, 4) for limit in ranking["auroc_interval"]],
            "sources": [source.partition("=")[0] for source in sources],
        }
    return {"pictures": len(pictures), "with_artifact": sum(flawed), "detectors": blocks}


def _sources(world: World) -> dict[str, list[str]]:
    """Make the data of each detector that is missing, and return the sources by name of the detector."""
    work = world.work / "first_result"
    photos = once(work / "photos", lambda: write_photos(render_many(PHOTOS, world.seed, "photos"), work / "photos"))
    injected = _made(world, work / "injected", "synthesize", photos)
    corrupted = _made(world, work / "corrupted", "corrupt", photos, "--regions", "annotations")
    drawn = once(work / "drawn", lambda: _draw_labelled(world, work / "drawn"))
    return {
        "injected": [f"pairs={injected}"],
        "corrupted": [f"pairs={corrupted}"],
        "mixture": [f"pairs={injected}", f"pairs={corrupted}"],
        "oracle": [f"benchmark={drawn}"],
    }


def _made(world: World, out: Path, command: str, photos: Path, *options: str) -> Path:
    def make() -> None:
        artiagent(
            command,
            photos,
            out,
            *_MANY,
            photos / ANNOTATIONS,
            *options,
            *("--model", world.generator),
            *("--seed", world.seed),
        )

    # A run is complete once it has its card.
    once(out / "README.md", make)
    return out


def _draw_labelled(world: World, out: Path) -> None:
    """Draw pictures of conditions that the generator knows, and write them with the oracle's verdicts."""
    known = [words for words in all_words() if not is_held_out(words)]
    order = np.random.default_rng(derive_seed(world.seed, "creatures:labelled")).permutation(len(known))
    words = [known[order[index % len(order)]] for index in range(PHOTOS * PAIRS_EACH)]
    seeds = [derive_seed(world.seed, f"creatures:labelled:{index}") for index in range(len(words))]
    pictures = world.draw(world.pipe, [asked.prompt for asked in words], seeds)
    write_labelled(pictures, words, out)


def _train(world: World, name: str, sources: list[str]) -> str:
    out = world.work / "first_result" / f"detector_{name}"

    def train() -> None:
        run_python(
            *("-m", "training.train_pixel_detector", "--config", "pixel_cpu_small"),
            *("--seed", world.seed),
            *("--sources", *sources),
            *("--output_dir", out),
        )

    once(out / "training.json", train)
    return str(out)
