"""Loading of detectors and verifiers by name: a pixel detector, or a vision-language model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from diffusers_artifact.presets import EMBEDDED

from ..detection.base import Detector
from ..detection.detector import ArtifactDetector
from ..detection.pixel.detector import PixelDetector
from ..detection.pixel.locating import is_pixel_detector
from ..detection.scoring import load_detector
from ..vlm.base import VLM
from ..vlm.spec import VLMSpec
from .captioner import VLMCaptioner
from .verifiers import PixelVerifier, Verifier, VLMVerifier


@dataclass(frozen=True, eq=False)
class Judge:
    """
    A loaded model that can detect and verify: one of both.

    Attributes:
        pixel (`PixelDetector`, *optional*): A pixel detector.
        vlm (`VLM`, *optional*): A vision-language model, which can also say what a scene should be.
    """

    pixel: PixelDetector | None = None
    vlm: VLM | None = None

    def detector(self) -> Detector:
        """Return the model as a detector."""
        if self.pixel is not None:
            return self.pixel
        assert self.vlm is not None  # one of both
        return ArtifactDetector(self.vlm)

    def verifier(self) -> Verifier:
        """Return the model as a verifier."""
        if self.pixel is not None:
            return PixelVerifier(self.pixel)
        assert self.vlm is not None  # one of both
        return VLMVerifier(self.vlm, self.vlm.box_format())

    def captioner(self) -> VLMCaptioner | None:
        """Return the model as a captioner, if it is one of language."""
        return None if self.vlm is None else VLMCaptioner(self.vlm, self.vlm.box_format())


def load_judge(model: str, device: str, spec: VLMSpec | None = None, argument: str = "detector") -> Judge:
    """
    Load a model that detects or verifies.

    Args:
        model (`str`): `"embedded"`, a folder, an id on the Hub, or a model's name at the endpoint of `spec`.
        device (`str`): Device.
        spec (`VLMSpec`, *optional*): How a vision-language model is run; its `model` does not count.
        argument (`str`, *optional*, defaults to `"detector"`): Name of the argument that names it, for messages.

    Raises:
        ArgumentError, UserError: It cannot be loaded.
    """
    at_endpoint = spec is not None and spec.endpoint is not None and model != EMBEDDED and not Path(model).is_dir()
    if not at_endpoint and is_pixel_detector(model, spec.revision if spec else None):
        return Judge(pixel=load_detector(model, device, argument))
    spec = replace(spec, model=model) if spec else VLMSpec(model)
    return Judge(vlm=spec.load(device))
