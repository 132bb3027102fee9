"""What every part of `fix.py` works with: the generator, held-out prompts and seeds, and files that are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from diffusers import FluxPipeline

from datasets_script.utils.files import replacing
from datasets_script.utils.seeds import derive_seed
from tests.benchmarks.creatures.generator import draw, load_generator
from tests.benchmarks.creatures.renderer import Render, render
from tests.benchmarks.creatures.words import Words, all_words, is_held_out


Draw = Callable[[FluxPipeline, Sequence[str], Sequence[int]], np.ndarray]
"""Draws pictures, `uint8` of shape `(batch, 64, 64, 3)` or `(batch, candidates, 64, 64, 3)`, of prompts from seeds."""


@dataclass(frozen=True)
class World:
    """
    Settings of a run.

    Args:
        generator (`Path`): Folder of the generator.
        work (`Path`): Folder of files that are kept between calls.
        number (`int`): Pictures of each part, paired by prompt and seed.
        steps (`int`): Steps of a picture.
        seed (`int`): Seed of the run.
        chunk (`int`, *optional*, defaults to 50): Pictures drawn between two writes.
    """

    generator: Path
    work: Path
    number: int
    steps: int
    seed: int
    chunk: int = 50

    @cached_property
    def pipe(self) -> FluxPipeline:
        return load_generator(self.generator)

    @cached_property
    def words(self) -> list[Words]:
        """Conditions of the pictures, none of which the generator was trained on."""
        held_out = [words for words in all_words() if is_held_out(words)]
        order = np.random.default_rng(derive_seed(self.seed, "creatures:conditions")).permutation(len(held_out))
        return [held_out[order[index % len(order)]] for index in range(self.number)]

    @cached_property
    def seeds(self) -> list[int]:
        """Seeds of the pictures' noise."""
        return [derive_seed(self.seed, f"creatures:noise:{index}") for index in range(self.number)]

    @cached_property
    def clean(self) -> list[Render]:
        """Clean renders of the same conditions, for comparison."""
        return [
            render(words, derive_seed(self.seed, f"creatures:clean:{index}")) for index, words in enumerate(self.words)
        ]

    def draw(self, pipe: FluxPipeline, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        """Draw with the stock pipeline."""
        return np.stack([np.asarray(picture) for picture in draw(pipe, prompts, seeds, self.steps)])

    def pictures(self, name: str, draw_some: Draw | None = None) -> np.ndarray:
        """
        Return the pictures of a part, and draw those that are missing.

        Args:
            name (`str`): Name of the part; its pictures are kept in a folder of that name.
            draw_some (`Draw`, *optional*): Draws some pictures. Defaults to the stock pipeline.

        Returns:
            `np.ndarray` of shape `(number, 64, 64, 3)`, or that of what `draw_some` draws, `uint8`.
        """
        return np.concatenate(
            [self._chunk(name, first, draw_some or self.draw) for first in range(0, self.number, self.chunk)]
        )

    def _chunk(self, name: str, first: int, draw_some: Draw) -> np.ndarray:
        path = self.work / name / f"{first:05d}.npy"
        if not path.exists():
            some = slice(first, min(first + self.chunk, self.number))
            prompts = [words.prompt for words in self.words[some]]
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, draw_some(self.pipe, prompts, self.seeds[some]))
            print(f"{name}: {some.stop} of {self.number} pictures", flush=True)
        pictures: np.ndarray = np.load(path)
        return pictures
