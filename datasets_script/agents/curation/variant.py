"""Variants of a photo, as the curation agent judges and describes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ...schema.pair import Artifact
from .thresholds import Verdict
from .triplets import Triplet, make_triplet


@dataclass(frozen=True, eq=False)
class Variant:
    """
    An artifact image with its clean image.

    Attributes:
        number (`int`): Number of the variant among those of the photo, from 0.
        caption (`str`): What the photo shows.
        clean, flawed (`PIL.Image.Image`): The clean and the artifact image, RGB, of one size.
        artifacts (`tuple[Artifact, ...]`): All artifacts of `flawed`.
        triplets (`tuple[Triplet | None, ...]`): For each artifact the images that a vision-language model judged it
            by, `None` if none was asked; empty before judging.
        clean_noise, flawed_noise (`np.ndarray` of shape `(channels, height, width)`, *optional*): Noise that `clean`
            and `flawed` were inverted to, float16; `None` unless the run stores it.
    """

    number: int
    caption: str
    clean: Image.Image
    flawed: Image.Image
    artifacts: tuple[Artifact, ...]
    triplets: tuple[Triplet | None, ...] = ()
    clean_noise: np.ndarray | None = None
    flawed_noise: np.ndarray | None = None

    def judged(self, verdicts: Sequence[Verdict]) -> Variant:
        """Return the variant with the scores and triplets of verdicts on its artifacts, given in their order."""
        return replace(
            self,
            artifacts=tuple(verdict.artifact for verdict in verdicts),
            triplets=tuple(verdict.triplet for verdict in verdicts),
        )

    def triplet(self, index: int) -> Triplet:
        """Return the triplet of an artifact, rendering it if judging has not."""
        shown = self.triplets[index] if self.triplets else None
        return shown or make_triplet(self.artifacts[index], self.clean, self.flawed)


@dataclass(frozen=True, eq=False)
class PairTexts:
    """
    Texts of a pair.

    Attributes:
        artifacts (`tuple[Artifact, ...]`): Its artifacts with their labels and explanations.
        clean_description (`str`): What the clean image shows.
        explanation (`str`): What is wrong with the artifact image.
        explanation_source (`str`): Author of the texts: `"template"`, or the id of a vision-language model.
    """

    artifacts: tuple[Artifact, ...]
    clean_description: str
    explanation: str
    explanation_source: str
