"""The curation agent: verdicts on injected artifacts, and the texts of the pairs that are kept (ArtiAgent §5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from ...schema.pair import Artifact, Pair
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
from .measures import measure
from .perceptual import PerceptualMetric
from .triplets import make_triplet
from .verdicts import CurationSettings, Verdict, judge


Text = TypeVar("Text")


@dataclass(frozen=True, eq=False)
class Candidate:
    """
    An injected artifact to be judged.

    Attributes:
        artifact (`Artifact`): As planned.
        clean, flawed (`PIL.Image.Image`): The reconstruction and the flawed image, RGB, of one size.
        all_targets_mask (`np.ndarray` of shape `(height, width)`, `bool`): Pixels of the target patches of all
            artifacts of the flawed image.
    """

    artifact: Artifact
    clean: Image.Image
    flawed: Image.Image
    all_targets_mask: np.ndarray


class ExplanationError(ValueError):
    """
    One pair could not be put into words; the message is the reason, `raw` what the vision-language model answered.
    """

    def __init__(self, message: str, raw: str = "") -> None:
        super().__init__(message)
        self.raw = raw


class Curator:
    """
    Judges artifacts and writes texts, with a vision-language model or, without one, by measures and templates alone.

    Args:
        settings (`CurationSettings`): Thresholds of acceptance.
        metric (`PerceptualMetric`): Measures crops.
        vlm (`VLM`, *optional*): Checks what is no distortion and writes all texts.
    """

    def __init__(self, settings: CurationSettings, metric: PerceptualMetric, vlm: VLM | None = None) -> None:
        self.settings, self.metric, self.vlm = settings, metric, vlm

    def judge(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        """
        Verdicts in the order of the candidates. All are measured first; a duplication, omission or fusion that the
        measures let pass is then shown to the vision-language model, if there is one, and kept if it sees the flaw.

        Raises:
            VLMUnavailable: the model itself cannot be had.
        """
        verdicts = [self._measure(candidate) for candidate in candidates]
        if self.vlm is None:
            return verdicts
        asked = [
            index
            for index, (candidate, verdict) in enumerate(zip(candidates, verdicts, strict=True))
            if verdict.kept and candidate.artifact.type != "distortion"
        ]
        answers = self.vlm.ask([_verification(candidates[index]) for index in asked])
        for index, answer in zip(asked, answers, strict=True):
            verdicts[index] = _after_check(verdicts[index], candidates[index].artifact, answer)
        return verdicts

    def explain(self, pairs: Sequence[Pair]) -> list[Pair | ExplanationError]:
        """
        The pairs with labels, explanations and a description of the clean image, in the same order. An answer that
        cannot be used costs its own pair alone and is never replaced by a template.

        Raises:
            VLMUnavailable: the model itself cannot be had.
        """
        if self.vlm is None:
            return [_from_templates(pair) for pair in pairs]
        # Pairs of one photograph share the clean image.
        clean_images = {id(pair.clean): pair.clean for pair in pairs}
        local = [_local_request(pair, artifact) for pair in pairs for artifact in pair.artifacts]
        answers = iter(self.vlm.ask([*local, *map(describe.request, clean_images.values())]))
        local_answers = [[next(answers) for _ in pair.artifacts] for pair in pairs]
        descriptions = dict(zip(clean_images, answers, strict=True))
        drafts = [
            _attempt(_with_details, pair, details, descriptions[id(pair.clean)])
            for pair, details in zip(pairs, local_answers, strict=True)
        ]
        answers = iter(self.vlm.ask([_global_request(draft) for draft in drafts if isinstance(draft, Pair)]))
        return [
            _attempt(_with_summary, draft, next(answers), self.vlm.model) if isinstance(draft, Pair) else draft
            for draft in drafts
        ]

    def identity(self) -> dict[str, Any]:
        """What a run records of curation beside `CurationSettings`, JSON-serialisable."""
        if self.vlm is None:
            return {"metric": self.metric.name, "vlm": None}
        prompts = {"verify": verify.VERSION, "explain": explain.VERSION, "describe": describe.VERSION}
        return {"metric": self.metric.name, "vlm": self.vlm.identity(), "prompts": prompts}

    def _measure(self, candidate: Candidate) -> Verdict:
        artifact = candidate.artifact
        scores = measure(artifact, candidate.clean, candidate.flawed, candidate.all_targets_mask, self.metric)
        return judge(replace(artifact, scores=scores), self.settings)


def _verification(candidate: Candidate) -> VLMRequest:
    artifact = candidate.artifact
    triplet = make_triplet(artifact, candidate.clean, candidate.flawed)
    return verify.request(artifact.type, subject(artifact), triplet)


def _after_check(measured: Verdict, artifact: Artifact, answer: VLMAnswer) -> Verdict:
    if answer.value is None:
        reason = f"no usable answer to the triplet check: {answer.error}"
        return Verdict(False, reason, measured.scores, answer.raw)
    seen = verify.read(answer.value)
    reason = f"the triplet check found {'the' if seen else 'no'} {artifact.type} ({measured.reason})"
    return Verdict(seen, reason, measured.scores | {"vlm_has_artifact": float(seen)})


def _local_request(pair: Pair, artifact: Artifact) -> VLMRequest:
    return explain.local_request(clause(artifact), make_triplet(artifact, pair.clean, pair.flawed))


def _global_request(pair: Pair) -> VLMRequest:
    return explain.global_request(pair.flawed, [(artifact.bbox, artifact.explanation) for artifact in pair.artifacts])


def _from_templates(pair: Pair) -> Pair:
    artifacts = tuple(
        replace(artifact, label=label(artifact), explanation=local_explanation(artifact, pair.flawed.size))
        for artifact in pair.artifacts
    )
    return replace(
        pair,
        artifacts=artifacts,
        clean_description=clean_description(pair.caption),
        explanation=global_explanation(artifacts),
        explanation_source=EXPLANATION_SOURCE,
    )


def _with_details(pair: Pair, details: Sequence[VLMAnswer], description: VLMAnswer) -> Pair:
    texts = [_read("local explanation", explain.read_local, answer) for answer in details]
    artifacts = tuple(
        replace(artifact, label=text.label, explanation=text.explanation)
        for artifact, text in zip(pair.artifacts, texts, strict=True)
    )
    described = _read("description of the clean image", describe.read, description)
    return replace(pair, artifacts=artifacts, clean_description=described)


def _with_summary(pair: Pair, answer: VLMAnswer, model: str) -> Pair:
    explanation = _read("global explanation", explain.read_global, answer)
    return replace(pair, explanation=explanation, explanation_source=model)


def _attempt(write: Callable[..., Pair], *arguments: Any) -> Pair | ExplanationError:
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
