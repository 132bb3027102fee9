"""The fifth stage: inject artifacts, have them judged, and replace or leave out the rejected ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image

from diffusers_artifact.confinement import soft_outline
from diffusers_artifact.mapping import PatchMapping

from ...agents.curation.curator import Curator
from ...agents.curation.labels import labelled
from ...agents.curation.thresholds import Verdict
from ...agents.curation.variant import Variant
from ...agents.planning import Choice, plan_artifacts
from ...schema.pair import Artifact, Rejection
from ...schema.pair_id import PairId
from ...utils.seeds import derive_seed
from ..injector import InjectionJob, Injector
from ..settings import RunSettings
from .base import ArtifactPlan, Sample, Stage, rejection_of


@dataclass(eq=False)
class _Attempt:
    """One variant of a photo while its artifacts are being made."""

    draft: _Draft
    number: int
    artifacts: tuple[Artifact, ...]
    tried: list[Artifact] = field(default_factory=list)
    """Artifacts rejected so far."""


@dataclass(eq=False)
class _Draft:
    """One sample while its variants are being made."""

    sample: Sample
    plan: ArtifactPlan
    clean: Image.Image | None = None
    injected: dict[int, Variant] = field(default_factory=dict)
    rejections: list[Rejection] = field(default_factory=list)
    unlike: str = ""
    """Why the clean image cannot be used."""


class Inject(Stage):
    """
    Stage that injects the planned artifacts and has them judged. A rejected artifact is replaced by another of the
    same tool, at another place or with another kernel, up to `settings.max_rerolls` times, and then left out. Each
    time its variant is injected again, because an image must not hold an artifact that its labels do not mention.

    Args:
        injector (`Injector`): Loaded model.
        curator (`Curator`): Judge of the artifacts.
        settings (`RunSettings`): Seed, number of rerolls, and limits of the plan.
        batch_size (`int`, *optional*, defaults to 1): Photos injected together.
    """

    name = "inject"

    def __init__(self, injector: Injector, curator: Curator, settings: RunSettings, batch_size: int = 1) -> None:
        super().__init__(batch_size)
        self.injector, self.curator, self.settings = injector, curator, settings

    def process(self, samples: Sequence[Sample]) -> list[Sample]:
        drafts = [_Draft(sample, sample.plan) for sample in samples if sample.plan]
        pending = [_Attempt(d, number, artifacts) for d in drafts for number, artifacts in d.plan.variants.items()]
        attempt = 0
        while pending:
            pending = self._attempt(pending, attempt)
            attempt += 1
        return [
            replace(
                draft.sample.noting(*draft.rejections),
                plan=draft.plan if draft.injected else None,
                injected=tuple(draft.injected[number] for number in sorted(draft.injected)),
                alive=bool(draft.injected),
            )
            for draft in drafts
        ]

    def _attempt(self, attempts: Sequence[_Attempt], number: int) -> list[_Attempt]:
        """Inject and judge; return the variants to inject again, with their new artifacts."""
        attempts, variants = self._usable(attempts, self._inject(attempts))
        self.injector.card.enter("judge", "vlm")
        again = []
        for attempt, variant, verdicts in zip(attempts, variants, self.curator.judge(variants), strict=True):
            kept, rejected = self._sort_out(attempt, verdicts)
            if not rejected:
                attempt.draft.injected[attempt.number] = variant.judged(verdicts)
                continue
            if number < self.settings.max_rerolls:
                kept += self._replacements(attempt, kept, rejected, number)
            if kept:
                again.append(replace(attempt, artifacts=tuple(kept)))
        return again

    def _usable(
        self, attempts: Sequence[_Attempt], variants: Sequence[Variant]
    ) -> tuple[list[_Attempt], list[Variant]]:
        """Leave out the photos whose clean image is too unlike them, and record why."""
        for draft, clean in {
            id(a.draft): (a.draft, v.clean) for a, v in zip(attempts, variants, strict=True)
        }.values():
            if unlike := self.curator.judge_clean(draft.plan.photo, clean):
                draft.rejections.append(Rejection(draft.sample.source_id, "curation", unlike))
                draft.unlike = unlike
        usable = [pair for pair in zip(attempts, variants, strict=True) if not pair[0].draft.unlike]
        return [attempt for attempt, _ in usable], [variant for _, variant in usable]

    def _inject(self, attempts: Sequence[_Attempt]) -> list[Variant]:
        """Inject all attempts, with one job for all variants of a photo."""
        groups: dict[int, list[_Attempt]] = {}
        for attempt in attempts:
            groups.setdefault(id(attempt.draft), []).append(attempt)
        jobs = [
            InjectionJob(
                group[0].draft.plan.photo,
                [PatchMapping.union(a.mapping for a in attempt.artifacts) for attempt in group],
                group[0].draft.plan.encoded,
                [np.max([soft_outline(a.part_mask, a.type) for a in attempt.artifacts], axis=0) for attempt in group],
            )
            for group in groups.values()
        ]
        variants = []
        for group, output in zip(groups.values(), self.injector.inject(jobs), strict=True):
            # All variants use the first reconstruction: that of a later attempt only differs by rounding.
            draft = group[0].draft
            clean = draft.clean = draft.clean or output.clean
            caption = draft.plan.scene.perception.caption
            variants += [
                Variant(attempt.number, caption, clean, flawed, labelled(attempt.artifacts, clean, flawed))
                for attempt, flawed in zip(group, output.flawed, strict=True)
            ]
        return variants

    def _sort_out(self, attempt: _Attempt, verdicts: Sequence[Verdict]) -> tuple[list[Artifact], list[Artifact]]:
        """Return the accepted and the rejected artifacts, and record the rejections."""
        source_id = attempt.draft.sample.source_id
        rejected = [verdict for verdict in verdicts if not verdict.kept]
        attempt.draft.rejections += [
            rejection_of(verdict.artifact, source_id, attempt.number, "curation", verdict.reason, verdict.raw)
            for verdict in rejected
        ]
        return [verdict.artifact for verdict in verdicts if verdict.kept], [verdict.artifact for verdict in rejected]

    def _replacements(
        self, attempt: _Attempt, kept: Sequence[Artifact], rejected: Sequence[Artifact], number: int
    ) -> list[Artifact]:
        """Plan, for each rejected artifact, another of the same tool that was not tried yet, if there is one."""
        attempt.tried.extend(rejected)
        plan, seed = attempt.draft.plan, self.settings.seed
        occupied = np.zeros(plan.scene.grid, dtype=bool)
        for artifact in kept:
            occupied |= artifact.mapping.target_patches() | artifact.mapping.reference_patches()
        avoid = _choices_of_others(plan, attempt.number)
        for artifact in attempt.tried:
            if artifact.tool == "add":  # the same part may be copied to another place
                occupied |= artifact.mapping.target_patches()
            else:
                avoid.add(Choice.of(artifact))
        name = f"{PairId(attempt.draft.sample.source_id, attempt.number)}:reroll {number}"
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


def _choices_of_others(plan: ArtifactPlan, number: int) -> set[Choice]:
    """Return the choices that the other variants of a photo are made of."""
    return {
        Choice.of(artifact).with_any_kernel
        for other, artifacts in {**plan.earlier, **plan.variants}.items()
        if other != number
        for artifact in artifacts
    }
