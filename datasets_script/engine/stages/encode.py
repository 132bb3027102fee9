"""The fourth stage: encode the captions for the diffusion model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..diffusion_model import DiffusionModel
from .base import Sample, Stage


class Encode(Stage):
    """
    Stage that encodes captions. All photos of a batch are perceived, planned and encoded before the first of them is
    injected, so that the models of one phase make way for those of the next once a batch, not once a photo.

    Args:
        model (`DiffusionModel`): Loaded model.
        batch_size (`int`, *optional*, defaults to 1): Photos that go through a phase together.
    """

    name = "encode"

    def __init__(self, model: DiffusionModel, batch_size: int = 1) -> None:
        super().__init__(batch_size)
        self.model = model

    def process(self, samples: Sequence[Sample]) -> list[Sample]:
        plans = [sample.plan for sample in samples if sample.plan is not None]
        encoded = self.model.encode([plan.scene.perception.caption for plan in plans])
        return [
            replace(sample, plan=replace(plan, encoded=text))
            for sample, plan, text in zip(samples, plans, encoded, strict=True)
        ]
