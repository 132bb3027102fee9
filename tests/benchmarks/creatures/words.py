"""What a picture is asked to show: species, colour, background and number of horns, and the words for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product

import numpy as np

from datasets_script.utils.seeds import derive_seed


Colour = tuple[int, int, int]

SPECIES = ("bear", "bunny", "cat", "mouse", "owl")
COLOURS: dict[str, Colour] = {
    "green": (110, 180, 90),
    "blue": (75, 135, 220),
    "purple": (150, 100, 205),
    "brown": (155, 105, 65),
    "teal": (50, 165, 165),
    "grey": (135, 140, 150),
}
BACKGROUNDS: dict[str, Colour] = {
    "sky": (170, 210, 240),
    "sand": (228, 208, 165),
    "mint": (185, 230, 195),
    "navy": (45, 50, 90),
    "maroon": (95, 40, 60),
}
HORNS = ("no horns", "one horn", "two horns")
_SENTENCE = re.compile(r"an? (\w+) (\w+) with (no horns|one horn|two horns) on a (\w+) background")


@dataclass(frozen=True)
class Words:
    """
    Condition of a picture.

    Args:
        species (`str`): One of `SPECIES`.
        colour (`str`): Name of the fur's colour, a key of `COLOURS`.
        background (`str`): Name of the background's colour, a key of `BACKGROUNDS`.
        horns (`int`): Number of horns, 0 to 2.
    """

    species: str
    colour: str
    background: str
    horns: int

    def __post_init__(self) -> None:
        known = {"species": SPECIES, "colour": tuple(COLOURS), "background": tuple(BACKGROUNDS), "horns": (0, 1, 2)}
        for name, values in known.items():
            if (value := getattr(self, name)) not in values:
                raise ValueError(f"`{name}` must be one of {', '.join(map(str, values))}, got {value!r}")

    @property
    def prompt(self) -> str:
        """The condition in words, such as `"a green owl with two horns on a navy background"`."""
        return f"a {self.colour} {self.species} with {HORNS[self.horns]} on a {self.background} background"


def parse(prompt: str) -> Words:
    """
    Read a condition from its words; the inverse of [`Words.prompt`].

    Raises:
        ValueError: The text has another form, or names something that this world does not have.
    """
    if not (match := _SENTENCE.fullmatch(prompt)):
        raise ValueError(f"`prompt` must read like {all_words()[0].prompt!r}, got {prompt!r}")
    colour, species, horns, background = match.groups()
    return Words(species, colour, background, HORNS.index(horns))


def all_words() -> list[Words]:
    """Return every condition, in a fixed order."""
    return [Words(*values) for values in product(SPECIES, COLOURS, BACKGROUNDS, range(len(HORNS)))]


def is_held_out(words: Words) -> bool:
    """Return whether a condition is kept from training, by a hash of its prompt. About a seventh of them are."""
    return derive_seed(0, f"creatures:held out:{words.prompt}") < 2**63 // 7


def known_words() -> list[Words]:
    """Return the conditions that are trained on, in a fixed order."""
    return [words for words in all_words() if not is_held_out(words)]


def draw_words(generator: np.random.Generator) -> Words:
    """Draw a condition, each with the same probability."""
    words = all_words()
    return words[int(generator.integers(len(words)))]


def vocabulary() -> list[str]:
    """Return the words that prompts consist of, in alphabetical order."""
    return sorted({word for words in all_words() for word in words.prompt.split()})
