"""The fifth stage: inject artifacts, have them judged, and replace or leave out the rejected ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from PIL import Image

from ...agents.curation.curator import Curator
from ...agents.curation.labels import labelled
from ...agents.curation.thresholds import Verdict
from ...agents.curation.variant import Variant
from ...schema.pair import Artifact, Rejection
from ...schema.pair_id import PairId
from ..diffusion_model import DiffusionModel
from ..planners import Planner
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
    Stage that injects the planned artifacts and has them judged. A rejected artifact is replaced by another that the
    planner chooses, such as one of the same tool at another place, up to `max_rerolls` times, and then left out. Each
    time its variant is injected again, because an image must not hold an artifact that its labels do not mention.

    Args:
        model (`DiffusionModel`): Loaded model.
        curator (`Curator`): Judge of the artifacts.
        planner (`Planner`): Chooses what replaces rejected artifacts.
        max_rerolls (`int`): How many times.
        batch_size (`int`, *optional*, defaults to 1): Photos injected together.
    """

    name = "inject"

    def __init__(
        self, model: DiffusionModel, curator: Curator, planner: Planner, max_rerolls: int, batch_size: int = 1
    ) -> None:
        super().__init__(batch_size)
        self.model, self.curator, self.planner, self.max_rerolls = model, curator, planner, max_rerolls

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
        self.model.card.enter("judge", "vlm", "judge")
        again = []
        for attempt, variant, verdicts in zip(attempts, variants, self.curator.judge(variants), strict=True):
            kept, rejected = self._sort_out(attempt, verdicts)
            if not rejected:
                attempt.draft.injected[attempt.number] = variant.judged(verdicts)
                continue
            if number < self.max_rerolls:
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
            self.model.job(
                group[0].draft.plan.photo,
                {str(PairId(attempt.draft.sample.source_id, attempt.number)): attempt.artifacts for attempt in group},
                group[0].draft.plan.encoded,
            )
            for group in groups.values()
        ]
        variants = []
        for group, output in zip(groups.values(), self.model.inject(jobs), strict=True):
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
        """Plan, for each rejected artifact, another that was not tried yet, if there is one."""
        attempt.tried.extend(rejected)
        plan = attempt.draft.plan
        generator = self.planner.generator(f"{PairId(attempt.draft.sample.source_id, attempt.number)}:reroll {number}")
        return self.planner.replacements(
            plan.scene,
            {**plan.earlier, **plan.variants},
            attempt.number,
            kept,
            rejected,
            attempt.tried,
            generator,
        )
