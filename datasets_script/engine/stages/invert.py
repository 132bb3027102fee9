"""An optional stage between the fifth and the sixth: invert both images of each pair to noise, to store it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..injector import Injector
from .base import Sample, Stage


class Invert(Stage):
    """
    Stage that inverts the clean image and the artifact images of each photo in one batch.

    Preference training takes the two images of a pair with the noise of each (PNAPO, arXiv 2605.09433). An artifact
    image is not what its noise, that of the photo, denoises to: artifacts were injected on the way. So it is inverted
    anew, and the clean image with it, although the photo's noise would do. Where both images are equal their noise is
    then equal up to what the artifact changes, and noise tells nothing else about which image is which.

    Args:
        model (`Injector`): Loaded model.
    """

    name = "invert"

    def __init__(self, model: Injector) -> None:
        super().__init__()
        self.model = model

    def process(self, samples: Sequence[Sample]) -> list[Sample]:
        return [self._inverted(sample) for sample in samples]

    def _inverted(self, sample: Sample) -> Sample:
        assert sample.plan is not None and sample.injected
        variants = sample.injected
        # Variants of one photo share the clean image.
        images = [variants[0].clean, *(variant.flawed for variant in variants)]
        clean, *flawed = self.model.invert(images, sample.plan.encoded)
        injected = tuple(
            replace(variant, clean_noise=clean, flawed_noise=noise)
            for variant, noise in zip(variants, flawed, strict=True)
        )
        return replace(sample, injected=injected)
