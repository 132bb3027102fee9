"""The third stage: choose the artifacts for the perceived entities and parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from PIL import Image

from diffusers_artifact.mapping import ArtifactType

from ...agents.perception import Perception, apply_to_perception
from ...agents.planning import Scene
from ...schema.pair import Rejection
from ...utils.photos import CONVERTED_FROM, SourceTransform, fit, fit_multiple
from ..planners import Planner
from ..settings import CommonSettings
from .base import ArtifactPlan, Sample, Stage


class Plan(Stage):
    """
    Stage that lets a planner choose the artifacts. Unless the settings say that a photo depends on its shard, they
    depend only on the photo and the seed; else the planner is told what was made among the samples of one `run`.

    Args:
        planner (`Planner`): Chooses the artifacts.
        settings (`CommonSettings`): Limits, and the number of variants.
        sample_size (`int`, *optional*): Side, in pixels, of the square images that the model is limited to.
    """

    name = "plan"

    def __init__(self, planner: Planner, settings: CommonSettings, sample_size: int | None) -> None:
        super().__init__()
        self.planner, self.settings, self.sample_size = planner, settings, sample_size
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
        perception, dropped = self.planner.usable(apply_to_perception(sample.perception, transform))
        sample = sample.noting(*(Rejection(sample.source_id, self.name, reason) for reason in dropped))
        if not perception.entities:
            return sample.rejected(self.name, "no entity left to work on")
        scene = Scene.of(perception, self.planner.patch_size)
        first, end = sample.variants or (0, self.settings.pairs_per_image)
        made = self.made.copy() if self.settings.depends_on_shard else Counter[ArtifactType]()
        planned, reasons = self.planner.variants(scene, sample.source_id, end, made)
        earlier = {number: planned.pop(number) for number in range(first) if number in planned}
        sample = sample.noting(
            *(
                Rejection(sample.source_id, self.name, reason, type=self.planner.types[tool], tool=tool)
                for tool, reason in reasons.items()
            )
        )
        if not planned:
            return sample.rejected(self.name, self.planner.nothing)
        self.made.update(artifact.type for artifacts in planned.values() for artifact in artifacts)
        plan = ArtifactPlan(transform.apply(image), transform, scene, planned, earlier=earlier)
        return replace(sample, image=None, perception=None, plan=plan)

    def _frame(self, image: Image.Image, perception: Perception) -> SourceTransform:
        """Return the crop that the model will see, centred on the perceived entities."""
        left, top, right, bottom = zip(*(entity.bbox for entity in perception.entities), strict=True)
        focus = (min(left), min(top), max(right), max(bottom))
        if self.sample_size:
            return fit(image.size, (self.sample_size, self.sample_size), focus)
        return fit_multiple(
            image.size, self.planner.patch_size, max_long_side=self.settings.max_long_side, focus=focus
        )
