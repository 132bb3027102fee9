"""The second stage: find the entities and parts in the photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...agents.perception import Perception, PerceptionAgent, PerceptionError
from ...schema.pair import Rejection
from ..card import Card
from .base import Sample, Stage


class Perceive(Stage):
    """
    Stage that names entities and parts, and finds their masks.

    Args:
        agent (`PerceptionAgent`): Loaded perception backend.
        batch_size (`int`, *optional*, defaults to 1): Photos perceived together.
        card (`Card`, *optional*): Device that its models share with those of other stages.
    """

    name = "perceive"

    def __init__(self, agent: PerceptionAgent, batch_size: int = 1, card: Card | None = None) -> None:
        super().__init__(batch_size)
        self.agent, self.card = agent, card

    def process(self, samples: Sequence[Sample]) -> list[Sample]:
        if self.card:
            self.card.enter("perceive", "vlm", "detectors")
        return [self._take(sample, result) for sample, result in zip(samples, self._perceive(samples), strict=True)]

    def _perceive(self, samples: Sequence[Sample]) -> list[Perception | PerceptionError]:
        images = [sample.image for sample in samples if sample.image is not None]
        return self.agent.perceive_batch(images, [sample.source_id for sample in samples])

    def _take(self, sample: Sample, result: Perception | PerceptionError) -> Sample:
        if isinstance(result, PerceptionError):
            return sample.rejected(self.name, str(result), raw=result.raw)
        sample = sample.noting(*(Rejection(sample.source_id, self.name, note) for note in result.notes))
        if not result.entities:
            return sample.rejected(self.name, "no entity in the image")
        return replace(sample, perception=result)
