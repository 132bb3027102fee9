"""The fourth stage: flaws are injected, judged, and where one is rejected, tried once more or left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image

from diffusers_artifact.mapping import PatchMapping

from ...agents.curation.curator import Candidate, Curator
from ...agents.curation.measures import target_pixels
from ...agents.curation.verdicts import Verdict
from ...agents.planning import Choice, plan_artifacts
from ...schema.pair import Artifact, Pair, Rejection
from ...utils.seeds import derive_seed
from ..injector import InjectionJob, Injector
from ..settings import RunSettings
from .base import FlawPlan, Sample, Stage, rejection_of


@dataclass(eq=False)
class _Variant:
    """One flawed variant of a photograph, while its flaws are being made."""

    draft: _Draft
    number: int
    artifacts: tuple[Artifact, ...]
    tried: list[Artifact] = field(default_factory=list)
    """What was rejected of it so far."""


@dataclass(eq=False)
class _Draft:
    """One sample while its variants are being made."""

    sample: Sample
    plan: FlawPlan
    clean: Image.Image | None = None
    pairs: dict[int, Pair] = field(default_factory=dict)
    rejections: list[Rejection] = field(default_factory=list)


class Inject(Stage):
    """
    Injects the planned flaws and has them judged. What is rejected is replaced, up to `settings.max_rerolls` times, by
    the same tool at another place or with another kernel, or else left out; the variant is then injected once more,
    because an image must not hold a flaw that its labels do not mention.

    Args:
        injector (`Injector`): The loaded model.
        curator (`Curator`): Gives the verdicts.
        settings (`RunSettings`): Seed, rerolls and the limits of the plan.
        batch_size (`int`): Photographs injected together.
    """

    name = "inject"

    def __init__(self, injector: Injector, curator: Curator, settings: RunSettings, batch_size: int = 1) -> None:
        super().__init__(batch_size)
        self.injector, self.curator, self.settings = injector, curator, settings

    def process(self, samples: Sequence[Sample]) -> list[Sample]:
        drafts = [_Draft(sample, sample.plan) for sample in samples if sample.plan]
        pending = [_Variant(d, number, artifacts) for d in drafts for number, artifacts in d.plan.variants.items()]
        attempt = 0
        while pending:
            pending = self._attempt(pending, attempt)
            attempt += 1
        return [
            replace(
                draft.sample.noting(*draft.rejections),
                plan=None,
                pairs=tuple(draft.pairs[number] for number in sorted(draft.pairs)),
                alive=bool(draft.pairs),
            )
            for draft in drafts
        ]

    def _attempt(self, variants: Sequence[_Variant], attempt: int) -> list[_Variant]:
        """Injects and judges; the variants that have to be injected again, with what they are to hold then."""
        flawed = self._inject(variants)
        candidates = [self._candidates(variant, image) for variant, image in zip(variants, flawed, strict=True)]
        verdicts = iter(self.curator.judge([candidate for group in candidates for candidate in group]))
        again = []
        for variant, image in zip(variants, flawed, strict=True):
            kept, rejected = self._sort_out(variant, [next(verdicts) for _ in variant.artifacts])
            if not rejected:
                variant.draft.pairs[variant.number] = self._pair(variant, image, kept)
                continue
            if attempt < self.settings.max_rerolls:
                kept += self._replacements(variant, kept, rejected, attempt)
            if kept:
                again.append(replace(variant, artifacts=tuple(kept)))
        return again

    def _inject(self, variants: Sequence[_Variant]) -> list[Image.Image]:
        """The flawed images of the variants, with one job for all variants of a photograph."""
        groups: dict[int, list[_Variant]] = {}
        for variant in variants:
            groups.setdefault(id(variant.draft), []).append(variant)
        jobs = [
            InjectionJob(
                group[0].draft.plan.photo,
                [PatchMapping.union(a.mapping for a in variant.artifacts) for variant in group],
                group[0].draft.plan.scene.perception.caption,
            )
            for group in groups.values()
        ]
        flawed = []
        for group, output in zip(groups.values(), self.injector.inject(jobs), strict=True):
            # The first reconstruction serves all variants: that of a later attempt differs in the last bits alone.
            group[0].draft.clean = group[0].draft.clean or output.clean
            flawed += output.flawed
        return flawed

    def _candidates(self, variant: _Variant, flawed: Image.Image) -> list[Candidate]:
        draft = variant.draft
        assert draft.clean is not None
        targets = target_pixels([a.mapping for a in variant.artifacts], draft.plan.scene.patch_size)
        return [Candidate(artifact, draft.clean, flawed, targets) for artifact in variant.artifacts]

    def _sort_out(self, variant: _Variant, verdicts: Sequence[Verdict]) -> tuple[list[Artifact], list[Artifact]]:
        """The artifacts that are kept and those that are not, with their scores; the latter are put on record."""
        kept: list[Artifact] = []
        rejected: list[Artifact] = []
        source_id = variant.draft.sample.source_id
        for artifact, verdict in zip(variant.artifacts, verdicts, strict=True):
            artifact = replace(artifact, scores=verdict.scores)
            (kept if verdict.kept else rejected).append(artifact)
            if not verdict.kept:
                variant.draft.rejections.append(
                    rejection_of(artifact, source_id, variant.number, "curation", verdict.reason, verdict.raw)
                )
        return kept, rejected

    def _replacements(
        self, variant: _Variant, kept: Sequence[Artifact], rejected: Sequence[Artifact], attempt: int
    ) -> list[Artifact]:
        """For each rejected artifact another by the same tool that has not been tried yet, as far as there is one."""
        variant.tried.extend(rejected)
        plan, seed = variant.draft.plan, self.settings.seed
        occupied = np.zeros(plan.scene.grid, dtype=bool)
        for artifact in kept:
            occupied |= artifact.mapping.target_patches() | artifact.mapping.reference_patches()
        avoid = _choices_of_others(plan, variant.number)
        for artifact in variant.tried:
            if artifact.tool == "add":  # the part may be copied to another place
                occupied |= artifact.mapping.target_patches()
            else:
                avoid.add((artifact.tool, artifact.parameters["instance_id"], artifact.parameters.get("kernel", "")))
        name = f"{variant.draft.sample.source_id}:{variant.number}:reroll {attempt}"
        generator = torch.Generator().manual_seed(derive_seed(seed, name))
        replacements: list[Artifact] = []
        for artifact in rejected:
            found, _ = plan_artifacts(
                plan.scene,
                (artifact.tool,),
                1,
                Counter(),
                generator,
                self.settings.max_target_share,
                frozenset(avoid),
                occupied,
            )
            for new in found:
                occupied |= new.mapping.target_patches() | new.mapping.reference_patches()
            replacements += found
        return replacements

    def _pair(self, variant: _Variant, flawed: Image.Image, artifacts: Sequence[Artifact]) -> Pair:
        draft, plan = variant.draft, variant.draft.plan
        assert draft.clean is not None
        source_id = draft.sample.source_id
        return Pair(
            pair_id=f"{source_id}:{variant.number}",
            source_id=source_id,
            source=plan.photo,
            clean=draft.clean,
            flawed=flawed,
            caption=plan.scene.perception.caption,
            clean_description="",
            explanation="",
            explanation_source="",
            grid=plan.scene.grid,
            seed=derive_seed(self.settings.seed, source_id),
            solver=self.settings.injection.solver,
            num_inference_steps=self.injector.num_inference_steps,
            model=self.injector.model,
            model_revision=self.injector.revision,
            transform=plan.transform.as_dict(),
            artifacts=tuple(artifacts),
        )


def _choices_of_others(plan: FlawPlan, number: int) -> set[Choice]:
    """What the other variants of a photograph are made of."""
    return {
        (artifact.tool, artifact.parameters["instance_id"], "")
        for other, artifacts in plan.variants.items()
        if other != number
        for artifact in artifacts
    }
