"""The last stage: what was injected is put into words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...agents.curation.curator import Curator, ExplanationError
from ...schema.pair import Pair
from .base import Sample, Stage, rejection_of


class Explain(Stage):
    """Puts what was injected into words, and describes the clean image."""

    name = "explain"

    def __init__(self, curator: Curator, batch_size: int = 1) -> None:
        super().__init__(batch_size)
        self.curator = curator

    def process(self, samples: Sequence[Sample]) -> list[Sample]:
        results = iter(self.curator.explain([pair for sample in samples for pair in sample.pairs]))
        return [self._take(sample, [next(results) for _ in sample.pairs]) for sample in samples]

    def _take(self, sample: Sample, results: Sequence[Pair | ExplanationError]) -> Sample:
        explained = []
        for pair, result in zip(sample.pairs, results, strict=True):
            if isinstance(result, Pair):
                explained.append(result)
                continue
            variant = int(pair.pair_id.rpartition(":")[2])
            sample = sample.noting(
                *(
                    rejection_of(artifact, sample.source_id, variant, self.name, str(result), result.raw)
                    for artifact in pair.artifacts
                )
            )
        return replace(sample, pairs=tuple(explained))
