"""Verifiers: models that say whether there is an artifact in a region."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ..detection.pixel.detector import PixelDetector
from ..detection.pixel.reading import image_score, smoothed_maximum
from ..detection.yes_no import AnswerError, read_yes_no
from ..schema.correction import Verdict
from ..vlm.base import VLM
from ..vlm.conventions import BoxFormat
from .questions import verify_request
from .regions import Region, box_mask


class Verifier(Protocol):
    """A model that judges a region of images."""

    def __call__(self, images: Sequence[Image.Image], region: Region) -> list[Verdict]:
        """
        Judge a region.

        Args:
            images (`Sequence[PIL.Image.Image]`): RGB, versions of one image.
            region (`Region`): The region, whose box is the same in all of them.

        Returns:
            `list[Verdict]`: A verdict for each image.
        """
        ...

    def identity(self) -> dict[str, Any]:
        """Return everything that verdicts depend on, JSON-serialisable."""
        ...


class PixelVerifier:
    """
    Verifier by a pixel detector: its score of an image of whose map only the region's box is left.

    Args:
        detector (`PixelDetector`): The detector.
    """

    def __init__(self, detector: PixelDetector) -> None:
        self.detector = detector

    def __call__(self, images: Sequence[Image.Image], region: Region) -> list[Verdict]:
        """Judge a region; see [`Verifier`]."""
        calibration = self.detector.record.calibration
        verdicts = []
        for artifact_map in self.detector.maps(images):
            within = np.where(box_mask(region.box, images[0].size), artifact_map, 0)
            score = image_score(smoothed_maximum(within, calibration.window), calibration)
            verdicts.append(Verdict(bool(score > calibration.threshold), round(score, 4)))
        return verdicts

    def identity(self) -> dict[str, Any]:
        """Return everything that verdicts depend on."""
        return {"kind": "pixel detector", **self.detector.identity()}


class VLMVerifier:
    """
    Verifier by a vision-language model, which is asked "is there an artifact within this box?" (ArtiAgent, Alg. 6).

    Args:
        vlm (`VLM`): The model.
        form (`BoxFormat`): How it reads boxes.
    """

    def __init__(self, vlm: VLM, form: BoxFormat) -> None:
        self.vlm, self.form = vlm, form

    def __call__(self, images: Sequence[Image.Image], region: Region) -> list[Verdict]:
        """Judge a region; see [`Verifier`]."""
        requests = [
            verify_request(image, self.form(region.box, image.size), self.form.convention.meaning) for image in images
        ]
        return [_read(answer.raw, answer.error) for answer in self.vlm.ask(requests)]

    def identity(self) -> dict[str, Any]:
        """Return everything that verdicts depend on."""
        return {"kind": "vision-language model", **self.vlm.identity(), **self.form.record()}


def _read(text: str, error: str) -> Verdict:
    if error:
        return Verdict(None, None, error)
    try:
        return Verdict(read_yes_no(text), None, text)
    except AnswerError as reason:
        return Verdict(None, None, f"{reason}: {text}")
