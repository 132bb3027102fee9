"""The rest of the second stage, where an endpoint was asked ahead: find what it named."""

from __future__ import annotations

from collections.abc import Sequence

from ...agents.perception import Perception, PerceptionError
from ...agents.perception.vocabulary import VocabularyPerception
from ..card import Card
from .base import Sample
from .perceive import Perceive


class Locate(Perceive):
    """
    Stage that finds the masks of what [`Name`] has named.

    Args:
        agent (`VocabularyPerception`): Loaded perception backend.
        batch_size (`int`, *optional*, defaults to 1): Photos processed together.
        card (`Card`, *optional*): Device that its models share with those of other stages.
    """

    agent: VocabularyPerception

    def __init__(self, agent: VocabularyPerception, batch_size: int = 1, card: Card | None = None) -> None:
        super().__init__(agent, batch_size, card)

    def _perceive(self, samples: Sequence[Sample]) -> list[Perception | PerceptionError]:
        images = [sample.image for sample in samples if sample.image is not None]
        return self.agent.locate(images, [sample.naming for sample in samples if sample.naming is not None])
