"""
What is measured of single images. A new measure is a class here or in a file of its own, and a line in
[`~datasets_script.comparison.compare.load_measures`].
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image

from ..detection.pixel.detector import PixelDetector
from ..detection.pixel.reading import smoothed_maximum
from ..detection.scoring import Scorer
from ..utils.hub_ids import last_name


THRESHOLD = 0.5
"""Value of an artifact map above which a pixel counts as an artifact (DiffDoctor §4.1)."""


@dataclass(frozen=True)
class Column:
    """
    A column of scores.

    Attributes:
        name (`str`): Its name in files.
        words (`str`): Its name for readers.
        better (`str`): `"higher"`, `"lower"`, or `"neither"`.
        is_share (`bool`): Whether a value is 0 or 1, so that the mean is a share of images.
        is_ratio (`bool`): Whether 0 means none, so that relative changes make sense.
    """

    name: str
    words: str
    better: Literal["higher", "lower", "neither"]
    is_share: bool = False
    is_ratio: bool = False

    def worsening(self, difference: float) -> float:
        """Return how much worse a difference of values is; the change itself where neither direction is."""
        return -difference if self.better == "higher" else difference


@dataclass(frozen=True)
class MeasuredColumn:
    """
    A column with its values.

    Attributes:
        column (`Column`): The column.
        values (`Sequence[Sequence[float]]`): For each folder the values, in one order.
        chosen (`Sequence[bool]`): Whether this measure is what chose or guided the images of each folder.
    """

    column: Column
    values: Sequence[list[float]]
    chosen: Sequence[bool]


class Measure(Protocol):
    """A measure of images, of one or more columns."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return its columns."""
        ...

    def __call__(self, images: list[Image.Image], prompts: list[str]) -> list[dict[str, float]]:
        """
        Measure images.

        Args:
            images (`list[PIL.Image.Image]`): RGB.
            prompts (`list[str]`): Prompt of each; empty if it is not known.

        Returns:
            `list[dict[str, float]]`: For each image a value of each column, by its name.
        """
        ...

    def identity(self) -> dict[str, Any]:
        """Return everything that values depend on, JSON-serialisable."""
        ...

    def chose(self, scorer: Mapping[str, Any]) -> bool:
        """Return whether this is also what chose or guided the images of a run, by a scorer that the run recorded."""
        ...


class ArtifactMeasure:
    """
    What a pixel detector sees: whether the map exceeds 0.5 anywhere (the mean is DiffDoctor's artifact frequency), its
    smoothed maximum, and the share of the image above 0.5.

    Args:
        detector (`PixelDetector`): The detector.
        label (`str`): Short name of it, for the columns.
    """

    def __init__(self, detector: PixelDetector, label: str) -> None:
        self.detector = detector
        self.columns = (
            Column(f"{label}.artifact_frequency", f"artifact frequency ({label})", "lower", True, True),
            Column(f"{label}.smoothed_maximum", f"smoothed maximum ({label})", "lower", False, True),
            Column(f"{label}.artifact_area", f"artifact area ({label})", "lower", False, True),
        )

    def __call__(self, images: list[Image.Image], prompts: list[str]) -> list[dict[str, float]]:
        """Measure images; see [`Measure`]."""
        window, names = self.detector.record.calibration.window, [column.name for column in self.columns]
        return [
            dict(
                zip(
                    names,
                    (
                        float(found.max() > THRESHOLD),
                        smoothed_maximum(found, window),
                        float((found > THRESHOLD).mean()),
                    ),
                    strict=True,
                )
            )
            for found in self.detector.maps(images)
        ]

    def identity(self) -> dict[str, Any]:
        """Return everything that values depend on, JSON-serialisable."""
        return self.detector.identity()

    def chose(self, scorer: Mapping[str, Any]) -> bool:
        """Return whether this detector chose or guided the images of a run."""
        return scorer.get("detector") == _as_stored(self.identity())


class RewardMeasure:
    """
    Score of a reward model.

    Args:
        reward (`Scorer`): The reward model.
    """

    def __init__(self, reward: Scorer) -> None:
        self.reward = reward
        self.columns = (Column("reward", "reward", "higher"),)

    def __call__(self, images: list[Image.Image], prompts: list[str]) -> list[dict[str, float]]:
        """Measure images; see [`Measure`]."""
        return [{"reward": float(score)} for score in self.reward(images)]

    def identity(self) -> dict[str, Any]:
        """Return everything that values depend on, JSON-serialisable."""
        return self.reward.identity()

    def chose(self, scorer: Mapping[str, Any]) -> bool:
        """Return whether this reward model chose or guided the images of a run."""
        return dict(scorer) == _as_stored(self.identity())


class SharpnessMeasure:
    """
    Standard deviation of the image's Laplacian of four neighbours, in grey levels (0 to 255): lower is blurred, far
    higher is noise or a grid. Compare it among images of one size.
    """

    columns = (Column("sharpness", "sharpness", "neither", False, True),)

    def __call__(self, images: list[Image.Image], prompts: list[str]) -> list[dict[str, float]]:
        """Measure images; see [`Measure`]."""
        return [{"sharpness": sharpness(image)} for image in images]

    def identity(self) -> dict[str, Any]:
        """Return everything that values depend on, JSON-serialisable."""
        return {"sharpness": "standard deviation of the Laplacian in grey levels"}

    def chose(self, scorer: Mapping[str, Any]) -> bool:
        """Return `False`: nothing is chosen or guided by sharpness."""
        return False


def sharpness(image: Image.Image) -> float:
    """
    Compute the standard deviation of an image's Laplacian; see [`SharpnessMeasure`].

    Args:
        image (`PIL.Image.Image`): At least 3 px on both sides.

    Example:

    ```python
    >>> sharpness(Image.new("RGB", (8, 8), "grey"))
    0.0

    ```
    """
    grey = np.asarray(image.convert("L"), dtype=np.float64)
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((around - 4 * grey[1:-1, 1:-1]).std())


def labels_of(names: Sequence[str]) -> list[str]:
    """Return short names of models, each with its place where two would be equal."""
    short = [last_name(name) for name in names]
    return [f"{label} {place}" if short.count(label) > 1 else label for place, label in enumerate(short, start=1)]


def _as_stored(content: Any) -> Any:
    """Return what is read again after writing as JSON, with lists for tuples."""
    return json.loads(json.dumps(content))
