"""How much images of one prompt differ from one another."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean

import numpy as np
from tqdm import tqdm

from ..agents.curation.perceptual import PerceptualMetric
from ..detection.images import upright
from ..figures.drawing import fitted
from ..utils.errors import UserError
from .folders import Compared
from .measures import Column, MeasuredColumn


DIVERSITY = Column("diversity", "diversity within a prompt", "higher", False, True)

_SIDE = 256


def diversities(compared: Compared, metric: PerceptualMetric) -> tuple[list[str], MeasuredColumn]:
    """
    Compute the mean perceptual distance of all pairs of images of a prompt, reduced to a long side of 256 px.

    Args:
        compared (`Compared`): The folders.
        metric (`PerceptualMetric`): Distance of two images.

    Returns:
        `tuple[list[str], MeasuredColumn]`: Ids of the prompts with several images, and for each folder the mean
        distance within each of them.

    Raises:
        UserError: Images of a prompt differ in size.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(compared.groups):
        members.setdefault(group, []).append(index)
    several = {group: indices for group, indices in members.items() if len(indices) > 1}
    values: list[list[float]] = [[] for _ in compared.names]
    with tqdm(desc="diversity", total=len(several) * len(values), unit="prompt") as bar:
        for place, of_folder in enumerate(values):
            for indices in several.values():
                of_folder.append(_diversity([compared.images[index].paths[place] for index in indices], metric))
                bar.update()
    return list(several), MeasuredColumn(DIVERSITY, values, [False] * len(values))


def _diversity(paths: Sequence[Path], metric: PerceptualMetric) -> float:
    pictures = [np.asarray(fitted(upright(path), _SIDE), dtype=np.float32) / 255 for path in paths]
    if len({picture.shape for picture in pictures}) > 1:
        raise UserError(
            f"images of a prompt must have one size for --diversity, got others beside '{paths[0]}'; give --diversity "
            "none"
        )
    return fmean(metric(first, second) for first, second in combinations(pictures, 2))
