"""Curation agent: verdicts on injected artifacts, and the texts of the pairs that are kept (ArtiAgent §5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from PIL import Image

from diffusers_artifact.visible_change import definition

from ...schema.pair import Artifact
from ...utils.hub_ids import last_name
from ...vlm.base import VLM, VLMAnswer, VLMRequest
from ..prompts import describe, explain, verify
from .explanations import (
    EXPLANATION_SOURCE,
    clause,
    clean_description,
    global_explanation,
    label,
    local_explanation,
    subject,
)
from .measures import as_array, measure, psnr
from .perceptual import PerceptualMetric
from .second_opinion import with_second_opinion
from .thresholds import CurationSettings, RegionGates, Verdict, judge, judge_clean
from .triplets import Triplet, make_triplet
from .variant import PairTexts, Variant


if TYPE_CHECKING:
    from ...detection.pixel.detector import PixelDetector


Text = TypeVar("Text")
Written = TypeVar("Written")


class ExplanationError(ValueError):
    """A pair could not be described. The message gives the reason, `raw` the answer of the vision-language model."""

    def __init__(self, message: str, raw: str = "") -> None:
        super().__init__(message)
        self.raw = raw


@dataclass(frozen=True, eq=False)
class _Draft:
    """Texts that the explanation of the whole image is based on."""

    artifacts: tuple[Artifact, ...]
    clean_description: str


class Curator:
    """
    Judges artifacts and writes texts: with a vision-language model, or by measures and templates alone.

    Args:
        settings (`CurationSettings`): Thresholds of acceptance.
        metric (`PerceptualMetric`): Perceptual distance of crops.
        vlm (`VLM`, *optional*): Checks all artifacts but distortions and corruptions, and writes all texts.
        detector (`PixelDetector`, *optional*): Gives a second opinion on what is kept, which is recorded in the scores
            and rejects nothing.
        gates (`RegionGates`, *optional*): Gates of corruptions.
    """

    def __init__(
        self,
        settings: CurationSettings,
        metric: PerceptualMetric,
        vlm: VLM | None = None,
        detector: PixelDetector | None = None,
        gates: RegionGates | None = None,
    ) -> None:
        self.settings, self.metric, self.vlm, self.detector, self.gates = settings, metric, vlm, detector, gates

    def judge(self, variants: Sequence[Variant]) -> list[list[Verdict]]:
        """
        Judge the artifacts of images. All are measured first. Duplications, omissions and fusions that pass are then
        shown to the vision-language model, if there is one, and kept if it sees the artifact. Of what is kept, the
        detector is asked, if there is one.

        Args:
            variants (`Sequence[Variant]`): Artifact images with their clean images.

        Returns:
            `list[list[Verdict]]`: For each variant the verdicts on its artifacts, in their order.

        Raises:
            VLMUnavailable: The vision-language model cannot be reached.
        """
        verdicts = [self._measure(variant) for variant in variants]
        if self.vlm is not None:
            self._check(self.vlm, variants, verdicts)
        return verdicts if self.detector is None else with_second_opinion(variants, verdicts, self.detector)

    def judge_clean(self, photo: Image.Image, clean: Image.Image) -> str:
        """Return why a clean image is rejected, which is too unlike its photo; empty if it is kept."""
        return judge_clean(psnr(as_array(photo), as_array(clean)), self.settings)

    def explain(self, variants: Sequence[Variant]) -> list[PairTexts | ExplanationError]:
        """
        Write labels, explanations and a description of the clean image for each variant. An unusable answer rejects
        its own pair only, and is never replaced by a template.

        Args:
            variants (`Sequence[Variant]`): Artifact images with their clean images.

        Returns:
            `list[PairTexts | ExplanationError]`: For each variant its texts, or why there are none.

        Raises:
            VLMUnavailable: The vision-language model cannot be reached.
        """
        if self.vlm is None:
            return [_from_templates(variant) for variant in variants]
        # Variants of one photo share the clean image.
        clean_images = {id(variant.clean): variant.clean for variant in variants}
        local = [_local_request(variant, index) for variant in variants for index in range(len(variant.artifacts))]
        answers = iter(self.vlm.ask([*local, *map(describe.request, clean_images.values())]))
        local_answers = [[next(answers) for _ in variant.artifacts] for variant in variants]
        descriptions = dict(zip(clean_images, answers, strict=True))
        drafts = [
            _attempt(_with_details, variant, details, descriptions[id(variant.clean)])
            for variant, details in zip(variants, local_answers, strict=True)
        ]
        answers = iter(
            self.vlm.ask(
                [
                    _global_request(variant, draft)
                    for variant, draft in zip(variants, drafts, strict=True)
                    if not isinstance(draft, ExplanationError)
                ]
            )
        )
        return [
            draft
            if isinstance(draft, ExplanationError)
            else _attempt(_with_summary, draft, next(answers), self.vlm.model)
            for draft in drafts
        ]

    def identity(self) -> dict[str, Any]:
        """Return what a run records of curation besides `CurationSettings`, JSON-serialisable."""
        detector = None
        if self.detector is not None:
            # A path is not part of what results depend on, and may differ between processes.
            detector = {**self.detector.identity(), "model": last_name(self.detector.name)}
        measured = {"metric": self.metric.name, "visible_change": definition(), "detector": detector}
        if self.vlm is None:
            return {**measured, "vlm": None}
        prompts = {"verify": verify.VERSION, "explain": explain.VERSION, "describe": describe.VERSION}
        return {**measured, "vlm": self.vlm.identity(), "prompts": prompts}

    def _check(self, vlm: VLM, variants: Sequence[Variant], verdicts: list[list[Verdict]]) -> None:
        """Show what the measures kept to the vision-language model, and replace the verdicts on it."""
        asked = [
            (place, index, make_triplet(verdict.artifact, variant.clean, variant.flawed))
            for place, variant in enumerate(variants)
            for index, verdict in enumerate(verdicts[place])
            if verdict.kept and verdict.artifact.type in verify.TYPES
        ]
        answers = vlm.ask([_verification(verdicts[place][index], triplet) for place, index, triplet in asked])
        for (place, index, triplet), answer in zip(asked, answers, strict=True):
            verdicts[place][index] = _after_check(verdicts[place][index], triplet, answer)

    def _measure(self, variant: Variant) -> list[Verdict]:
        scores = measure(variant.artifacts, variant.clean, variant.flawed, self.metric)
        return [
            judge(replace(artifact, scores=of_artifact), self.settings, self.gates)
            for artifact, of_artifact in zip(variant.artifacts, scores, strict=True)
        ]


def _verification(verdict: Verdict, triplet: Triplet) -> VLMRequest:
    return verify.request(verdict.artifact.type, subject(verdict.artifact), triplet)


def _after_check(measured: Verdict, triplet: Triplet, answer: VLMAnswer) -> Verdict:
    artifact = measured.artifact
    if answer.value is None:
        reason = f"no usable answer to the triplet check: {answer.error}"
        return Verdict(False, reason, artifact, answer.raw, triplet)
    seen = verify.read(answer.value)
    reason = f"the triplet check found {'the' if seen else 'no'} {artifact.type} ({measured.reason})"
    scored = replace(artifact, scores={**artifact.scores, "vlm_has_artifact": float(seen)})
    return Verdict(seen, reason, scored, triplet=triplet)


def _local_request(variant: Variant, index: int) -> VLMRequest:
    return explain.local_request(clause(variant.artifacts[index]), variant.triplet(index))


def _global_request(variant: Variant, draft: _Draft) -> VLMRequest:
    return explain.global_request(
        variant.flawed, [(artifact.bbox, artifact.explanation) for artifact in draft.artifacts]
    )


def _from_templates(variant: Variant) -> PairTexts:
    artifacts = tuple(
        replace(artifact, label=label(artifact), explanation=local_explanation(artifact, variant.flawed.size))
        for artifact in variant.artifacts
    )
    return PairTexts(artifacts, clean_description(variant.caption), global_explanation(artifacts), EXPLANATION_SOURCE)


def _with_details(variant: Variant, details: Sequence[VLMAnswer], description: VLMAnswer) -> _Draft:
    texts = [_read("local explanation", explain.read_local, answer) for answer in details]
    artifacts = tuple(
        replace(artifact, label=text.label, explanation=text.explanation)
        for artifact, text in zip(variant.artifacts, texts, strict=True)
    )
    return _Draft(artifacts, _read("description of the clean image", describe.read, description))


def _with_summary(draft: _Draft, answer: VLMAnswer, model: str) -> PairTexts:
    explanation = _read("global explanation", explain.read_global, answer)
    return PairTexts(draft.artifacts, draft.clean_description, explanation, model)


def _attempt(write: Callable[..., Written], *arguments: Any) -> Written | ExplanationError:
    try:
        return write(*arguments)
    except ExplanationError as error:
        return error


def _read(what: str, read: Callable[[Mapping[str, Any]], Text], answer: VLMAnswer) -> Text:
    if answer.value is None:
        raise ExplanationError(f"no usable {what}: {answer.error}", answer.raw)
    try:
        return read(answer.value)
    except ValueError as error:
        raise ExplanationError(f"no usable {what}: {error}", answer.raw) from error
