"""The part of the second stage that needs no device: ask an endpoint what is in the photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...agents.perception.vocabulary import VocabularyPerception
from .base import Sample, Stage


class Name(Stage):
    """
    Stage that asks a vision-language model at an endpoint what is in the photos, ahead of [`Locate`]. The photos are
    not kept, because a shard of them may take a gigabyte; they are opened again.

    Args:
        agent (`VocabularyPerception`): Loaded perception backend.
        batch_size (`int`, *optional*, defaults to 1): Photos asked about together.
    """

    name = "perceive"

    def __init__(self, agent: VocabularyPerception, batch_size: int = 1) -> None:
        super().__init__(batch_size)
        self.agent = agent

    def process(self, samples: Sequence[Sample]) -> list[Sample]:
        namings = self.agent.name([sample.image for sample in samples if sample.image is not None])
        return [replace(sample, image=None, naming=naming) for sample, naming in zip(samples, namings, strict=True)]
