"""The third stage: choose the artifacts for the perceived entities and parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from PIL import Image

from diffusers_artifact.mapping import ArtifactType
from diffusers_artifact.tools import ARTIFACT_TYPE_OF_TOOL

from ...agents.perception import Perception, apply_to_perception, filter_perception
from ...agents.planning import Choice, Scene, plan_artifacts
from ...schema.pair import Artifact, Rejection
from ...utils.photos import CONVERTED_FROM, SourceTransform, fit, fit_multiple
from ...utils.seeds import derive_seed
from ..settings import RunSettings
from .base import ArtifactPlan, Sample, Stage


class Plan(Stage):
    """
    Stage that chooses the artifacts. With `balance="sample"` they depend only on the photo and the seed; with
    `"shard"` the types that are rare so far among the samples of one `run` come first, which balances better if some
    types seldom fit.

    Args:
        settings (`RunSettings`): Tools, limits, seed and balance.
        sample_size (`int`, *optional*): Side, in pixels, of the square images that the model is limited to.
        patch_size (`int`): Side of a patch, in pixels.
    """

    name = "plan"

    def __init__(self, settings: RunSettings, sample_size: int | None, patch_size: int) -> None:
        super().__init__()
        self.settings, self.sample_size, self.patch_size = settings, sample_size, patch_size
        self.made: Counter[ArtifactType] = Counter()

    def run(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        self.made = Counter()
        yield from super().run(samples)

    def process(self, samples: Sequence[Sample]) -> list[Sample]:
        return [self._plan(sample) for sample in samples]

    def _plan(self, sample: Sample) -> Sample:
        image = sample.image
        assert image is not None and sample.perception is not None
        transform = self._frame(image, sample.perception)
        transform = replace(transform, converted_from=image.info.get(CONVERTED_FROM, ""))
        perception, dropped = filter_perception(
            apply_to_perception(sample.perception, transform), self.patch_size, self.settings.min_part_patches
        )
        sample = sample.noting(*(Rejection(sample.source_id, self.name, reason) for reason in dropped))
        if not perception.entities:
            return sample.rejected(self.name, "no entity left to work on")
        scene = Scene.of(perception, self.patch_size)
        first, end = sample.variants or (0, self.settings.pairs_per_image)
        planned, reasons = self._variants(scene, sample.source_id, end)
        earlier = {number: planned.pop(number) for number in range(first) if number in planned}
        sample = sample.noting(
            *(
                Rejection(sample.source_id, self.name, reason, type=ARTIFACT_TYPE_OF_TOOL[tool], tool=tool)
                for tool, reason in reasons.items()
            )
        )
        if not planned:
            return sample.rejected(self.name, "no tool fits")
        self.made.update(artifact.type for artifacts in planned.values() for artifact in artifacts)
        plan = ArtifactPlan(transform.apply(image), transform, scene, planned, earlier=earlier)
        return replace(sample, image=None, perception=None, plan=plan)

    def _frame(self, image: Image.Image, perception: Perception) -> SourceTransform:
        """Return the crop that the model will see, centred on the perceived entities."""
        left, top, right, bottom = zip(*(entity.bbox for entity in perception.entities), strict=True)
        focus = (min(left), min(top), max(right), max(bottom))
        if self.sample_size:
            return fit(image.size, (self.sample_size, self.sample_size), focus)
        return fit_multiple(image.size, self.patch_size, max_long_side=self.settings.max_long_side, focus=focus)

    def _variants(
        self, scene: Scene, source_id: str, count: int
    ) -> tuple[dict[int, tuple[Artifact, ...]], dict[str, str]]:
        settings, generator = self.settings, torch.Generator().manual_seed(derive_seed(self.settings.seed, source_id))
        made = self.made.copy() if settings.balance == "shard" else Counter()
        variants: dict[int, tuple[Artifact, ...]] = {}
        avoid: set[Choice] = set()
        for variant in range(count):
            most = int(torch.randint(1, settings.max_artifacts + 1, (), generator=generator))
            artifacts, reasons = plan_artifacts(
                scene, settings.tools, most, made, generator, settings.max_target_share, frozenset(avoid)
            )
            if artifacts:
                variants[variant] = tuple(artifacts)
            made.update(artifact.type for artifact in artifacts)
            avoid |= {Choice.of(artifact).with_any_kernel for artifact in artifacts}
        return variants, reasons
