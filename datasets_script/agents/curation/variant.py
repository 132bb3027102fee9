"""What an injection made of a photo, as the curation agent judges it and puts it into words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image

from ...schema.pair import Artifact
from .triplets import Triplet, make_triplet
from .verdicts import Verdict


@dataclass(frozen=True, eq=False)
class Variant:
    """
    An artifact image beside its clean image.

    Attributes:
        number (`int`): Which of the photo's variants it is, from 0.
        caption (`str`): What the photo shows.
        clean, flawed (`PIL.Image.Image`): The reconstruction and the artifact image, RGB, of one size.
        artifacts (`tuple[Artifact, ...]`): All artifacts of `flawed`.
        triplets (`tuple[Triplet | None, ...]`): For each artifact the images a vision-language model was shown when it
            judged the artifact, if it was asked; empty before judging.
    """

    number: int
    caption: str
    clean: Image.Image
    flawed: Image.Image
    artifacts: tuple[Artifact, ...]
    triplets: tuple[Triplet | None, ...] = ()

    def judged(self, verdicts: Sequence[Verdict]) -> Variant:
        """Return the variant with what verdicts on its artifacts, in their order, have added to them."""
        return replace(
            self,
            artifacts=tuple(verdict.artifact for verdict in verdicts),
            triplets=tuple(verdict.triplet for verdict in verdicts),
        )

    def triplet(self, index: int) -> Triplet:
        """Return the triplet of an artifact, rendered if the judge has not."""
        shown = self.triplets[index] if self.triplets else None
        return shown or make_triplet(self.artifacts[index], self.clean, self.flawed)


@dataclass(frozen=True, eq=False)
class PairTexts:
    """
    What is said of a pair.

    Attributes:
        artifacts (`tuple[Artifact, ...]`): Its artifacts with their labels and explanations.
        clean_description (`str`): What the clean image shows.
        explanation (`str`): What is wrong with the artifact image.
        explanation_source (`str`): What wrote the texts: `"template"`, or the id of a vision-language model.
    """

    artifacts: tuple[Artifact, ...]
    clean_description: str
    explanation: str
    explanation_source: str
