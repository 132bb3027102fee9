"""The sixth stage: explain the artifacts in words, and build the pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...agents.curation.curator import Curator, ExplanationError
from ...agents.curation.variant import PairTexts, Variant
from ...schema.pair import Pair
from ...schema.pair_id import PairId
from ...utils.seeds import derive_seed
from ..diffusion_model import DiffusionModel
from .base import ArtifactPlan, Sample, Stage, rejection_of


class Explain(Stage):
    """
    Stage that explains the artifacts, describes the clean images, and builds the pairs.

    Args:
        curator (`Curator`): Writer of the texts.
        model (`DiffusionModel`): Model that made the images; pairs record its name, solver and steps.
        seed (`int`): Seed of the run, from which that of each photo derives.
        batch_size (`int`, *optional*, defaults to 1): Photos explained together.
    """

    name = "explain"

    def __init__(self, curator: Curator, model: DiffusionModel, seed: int, batch_size: int = 1) -> None:
        super().__init__(batch_size)
        self.curator, self.model, self.seed = curator, model, seed

    def process(self, samples: Sequence[Sample]) -> list[Sample]:
        self.model.card.enter("explain", "vlm")
        results = iter(self.curator.explain([variant for sample in samples for variant in sample.injected]))
        return [self._take(sample, [next(results) for _ in sample.injected]) for sample in samples]

    def _take(self, sample: Sample, results: Sequence[PairTexts | ExplanationError]) -> Sample:
        plan, pairs = sample.plan, []
        assert plan is not None
        for variant, result in zip(sample.injected, results, strict=True):
            if isinstance(result, PairTexts):
                pairs.append(self._pair(sample.source_id, plan, variant, result))
                continue
            sample = sample.noting(
                *(
                    rejection_of(artifact, sample.source_id, variant.number, self.name, str(result), result.raw)
                    for artifact in variant.artifacts
                )
            )
        return replace(sample, plan=None, injected=(), pairs=tuple(pairs))

    def _pair(self, source_id: str, plan: ArtifactPlan, variant: Variant, texts: PairTexts) -> Pair:
        return Pair(
            pair_id=str(PairId(source_id, variant.number)),
            source_id=source_id,
            variant=variant.number,
            source=plan.photo,
            clean=variant.clean,
            flawed=variant.flawed,
            caption=variant.caption,
            clean_description=texts.clean_description,
            explanation=texts.explanation,
            explanation_source=texts.explanation_source,
            grid=plan.scene.grid,
            seed=derive_seed(self.seed, source_id),
            solver=self.model.solver,
            num_inference_steps=self.model.num_inference_steps,
            model=self.model.model,
            model_revision=self.model.revision,
            transform=plan.transform.as_dict(),
            artifacts=texts.artifacts,
            clean_noise=variant.clean_noise,
            flawed_noise=variant.flawed_noise,
        )
