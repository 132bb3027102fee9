"""
Hard cases by category (DiffDoctor §3.2): categories in which a detector is unusually sure, or unusually unsure, that
there are artifacts are drawn more often.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets_script.utils.errors import UserError


@dataclass(frozen=True)
class HardCases:
    """
    Categories that are drawn more often.

    Args:
        means (`Mapping[str, float]`): Mean confidence of a detector by category.
        factor (`float`, *optional*, defaults to 3.0): How much more often hard ones are drawn, at least 1.
        deviations (`float`, *optional*, defaults to 1.0): A category is hard if its mean differs from the mean over
            the categories by more than this many standard deviations.

    Raises:
        UserError: A number is out of range.
    """

    means: Mapping[str, float]
    factor: float = 3.0
    deviations: float = 1.0

    def __post_init__(self) -> None:
        if self.factor < 1 or self.deviations <= 0:
            raise UserError(
                f"--hard_case_factor must be at least 1 and the deviations above 0, got {self.factor} and "
                f"{self.deviations}"
            )

    @classmethod
    def read(cls, path: Path, factor: float = 3.0) -> HardCases:
        """
        Read the confidences that `artiagent pseudo-label` has written.

        Args:
            path (`Path`): Its file `confidences.jsonl`, or the folder with this file.
            factor (`float`, *optional*, defaults to 3.0): See the class.

        Raises:
            UserError: There is no such file, or a line lacks `category` or `mean`.
        """
        path = path / CONFIDENCES if path.is_dir() else path
        if not path.is_file():
            raise UserError(f"--hard_cases must be a folder of `artiagent pseudo-label`, found no '{path}'")
        try:
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            return cls(category_means((line["category"], line["mean"]) for line in lines), factor)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"--hard_cases must have category and mean in each line, got '{path}': {error}") from error

    @property
    def hard(self) -> tuple[str, ...]:
        """Return the names of the hard categories."""
        if not self.means:
            return ()
        values = np.array(list(self.means.values()))
        bound = self.deviations * values.std()
        return tuple(name for name, mean in self.means.items() if abs(mean - values.mean()) > bound)

    def frequencies(self, categories: Sequence[str]) -> np.ndarray:
        """
        Return how often units are drawn in a pass: hard ones `factor` times as often as others, once on average.

        Args:
            categories (`Sequence[str]`): Category of each unit.
        """
        hard = set(self.hard)
        raw = np.array([self.factor if category in hard else 1.0 for category in categories])
        return raw / raw.mean()

    def record(self) -> dict[str, Any]:
        """Return what the record of a training states: the factor, and the hard categories with their means."""
        return {"factor": self.factor, "categories": {name: self.means[name] for name in self.hard}}


CONFIDENCES = "confidences.jsonl"
"""File in a folder of pseudo labels with a line for each image: id, category, highest and mean probability."""


def category_means(items: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return the mean confidence by category, of pairs of category and an image's confidence."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    for category, confidence in items:
        values[category].append(confidence)
    return {category: float(np.mean(found)) for category, found in sorted(values.items())}
