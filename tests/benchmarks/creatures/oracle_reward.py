"""The oracle as a reward of `training.ddpo`: `function=tests.benchmarks.creatures.oracle_reward:fewer_faults`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from tests.benchmarks.creatures.oracle import judge
from tests.benchmarks.creatures.words import parse


MOST = 4  # artifacts that count


def fewer_faults(images: list[Image.Image], prompts: Sequence[str]) -> list[float]:
    """Return minus the number of artifacts in each picture of a creature, at most four."""
    verdicts = [judge(np.asarray(image), parse(prompt)) for image, prompt in zip(images, prompts, strict=True)]
    return [-float(min(len(verdict.faults), MOST)) for verdict in verdicts]
