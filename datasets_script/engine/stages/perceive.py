"""The second stage: find the entities and parts in the photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...agents.perception import Perception, PerceptionAgent, PerceptionError
from ...schema.pair import Rejection
from .base import Sample, Stage


class Perceive(Stage):
    """
    Stage that names entities and parts, and finds their masks.

    Args:
        agent (`PerceptionAgent`): Loaded perception backend.
        batch_size (`int`, *optional*, defaults to 1): Photos perceived together.
    """

    name = "perceive"

    def __init__(self, agent: PerceptionAgent, batch_size: int = 1) -> None:
        super().__init__(batch_size)
        self.agent = agent

    def process(self, samples: Sequence[Sample]) -> list[Sample]:
        images = [sample.image for sample in samples if sample.image is not None]
        results = self.agent.perceive_batch(images, [sample.source_id for sample in samples])
        return [self._take(sample, result) for sample, result in zip(samples, results, strict=True)]

    def _take(self, sample: Sample, result: Perception | PerceptionError) -> Sample:
        if isinstance(result, PerceptionError):
            return sample.rejected(self.name, str(result), raw=result.raw)
        sample = sample.noting(*(Rejection(sample.source_id, self.name, note) for note in result.notes))
        if not result.entities:
            return sample.rejected(self.name, "no entity in the image")
        return replace(sample, perception=result)
