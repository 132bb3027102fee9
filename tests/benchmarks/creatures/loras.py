"""
LoRAs of the generator, trained by the scripts for denoisers, and pictures drawn with them in the stock pipeline.

They are trained on conditions that the generator knows. The oracle sees nothing before the pictures of the held-out
conditions are drawn.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import FluxPipeline

from datasets_script.utils.files import replacing_folder, write_text
from tests.benchmarks.creatures.annotations import file_name
from tests.benchmarks.creatures.detectors import trained
from tests.benchmarks.creatures.generator import MAX_TOKENS
from tests.benchmarks.creatures.renderer import render_many
from tests.benchmarks.creatures.scene import SIDE
from tests.benchmarks.creatures.words import is_held_out, known_words
from tests.benchmarks.creatures.world import World
from tests.benchmarks.learning import once
from tests.benchmarks.learning import run as run_python


# Whose maps and scores are trained against, and what guards: it learned from other pictures, with another trunk.
TRAINED_AGAINST, GUARD = "many_labelled", "witness"
REAL_IMAGES = 320
# The usual bound of this small generator's own loss ends a training before it shows; sharpness and diversity are held
# closer for it.
GUARD_BANDS = "denoising_loss=:0.12 sharpness=-0.05:0.05 diversity=-0.05:"

Settings = Mapping[str, str | int | float]
"""Arguments of a script by name; several values of one are a text with spaces."""


def train_lora(world: World, name: str, script: str, settings: Settings, *more: str | Path | int) -> Path:
    """
    Return the folder of a LoRA, which is trained if it is missing.

    Args:
        world (`World`): Settings of the run.
        name (`str`): Name of the LoRA.
        script (`str`): Script of `training/`, such as `"ddpo"`.
        settings (`Mapping`): Its arguments.
        more: Further words of the command.
    """
    out = world.work / "loras" / name
    words = [word for option, value in settings.items() for word in (f"--{option}", *str(value).split())]

    def train() -> None:
        run_python(
            *("-m", f"training.{script}", "--model_name_or_path", world.generator, "--use_cpu", "true"),
            *("--size", f"{SIDE}x{SIDE}", "--max_sequence_length", MAX_TOKENS),
            *("--seed", world.seed, "--output_dir", out, *more, *words),
        )

    once(out / "training.json", train)
    return out


def drawn_and_guarded(world: World, guard: str = GUARD) -> list[str | Path | int]:
    """Return the words of a command for what is drawn and what guards, after making what is missing."""
    prompts, photos = world.work / "data" / "known_prompts.txt", world.work / "data" / "real_images"
    once(prompts, lambda: write_text(prompts, "".join(f"{words.prompt}\n" for words in known_words())))
    once(photos, lambda: _write_real(world.seed, photos))
    trained(world, guard)
    return [
        *("--prompts", prompts, "--real_images", photos, "--real_limit", REAL_IMAGES),
        *("--guard_detector", world.work / "detectors" / guard),
    ]


def draw_with_lora(
    folder: Path,
    draw_some: Callable[[FluxPipeline, Sequence[str], Sequence[int]], np.ndarray],
    pipe: FluxPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
) -> np.ndarray:
    """Draw pictures with a LoRA in the stock pipeline, which is as before afterwards."""
    with _loaded(pipe, folder):
        return draw_some(pipe, prompts, seeds)


def ending(folder: Path) -> dict[str, Any]:
    """Return how the training of a LoRA ended, as its record says."""
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    return {"steps": record["steps"], **{key: record["data"][key] for key in ("kept_step", "stopped", "guards")}}


def _write_real(seed: int, folder: Path) -> None:
    """Write clean renders of conditions that the generator knows, with their words, as an image folder."""
    renders = [one for one in render_many(2 * REAL_IMAGES, seed, "real images") if not is_held_out(one.words)]
    rows = []
    with replacing_folder(folder) as temporary:
        for index, render in enumerate(renders[:REAL_IMAGES]):
            render.picture.save(temporary / file_name(index))
            rows.append(json.dumps({"file_name": file_name(index), "text": render.words.prompt}))
        write_text(temporary / "metadata.jsonl", "\n".join(rows) + "\n")


@contextmanager
def _loaded(pipe: FluxPipeline, folder: Path) -> Iterator[None]:
    pipe.load_lora_weights(folder)
    try:
        yield
    finally:
        pipe.unload_lora_weights()
