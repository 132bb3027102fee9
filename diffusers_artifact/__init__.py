"""
Artifact injection and corruption with diffusion models: pipelines, solvers, tools and the embedded default model.

Public names are imported on first use, so that `import diffusers_artifact.mapping` loads neither torch nor diffusers.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .registration import register_pipeline


if TYPE_CHECKING:
    from diffusers import ModelMixin

    from .autoencoder import AutoencoderPCA
    from .best_of_n import BestOfN, best_of_n
    from .detector_guidance import DetectorGuidance, GuidanceSettings
    from .held_photo import HeldPhoto
    from .mapping import ARTIFACT_TYPES, ArtifactType, NotApplicable, PatchMapping
    from .pipeline import ArtifactInjectionOutput, ArtifactInjectionPipeline
    from .pipeline_corruption import ArtifactCorruptionOutput, ArtifactCorruptionPipeline
    from .renoise import ReNoise
    from .repair import RegionRepairer, find_inpainter
    from .repair_denoising import DenoisingInpainter
    from .repair_inpainting import StockInpainter
    from .schedulers import SOLVERS
    from .tools.from_region import map_region


EMBEDDED_MODEL = Path(__file__).parent / "embedded"
"""Folder of the embedded default model, for `from_pretrained`."""

_HOMES = {
    "ARTIFACT_TYPES": ".mapping",
    "ArtifactCorruptionOutput": ".pipeline_corruption",
    "ArtifactCorruptionPipeline": ".pipeline_corruption",
    "ArtifactInjectionOutput": ".pipeline",
    "ArtifactInjectionPipeline": ".pipeline",
    "ArtifactType": ".mapping",
    "AutoencoderPCA": ".autoencoder",
    "BestOfN": ".best_of_n",
    "DenoisingInpainter": ".repair_denoising",
    "DetectorGuidance": ".detector_guidance",
    "GuidanceSettings": ".detector_guidance",
    "HeldPhoto": ".held_photo",
    "ModelMixin": "diffusers",  # diffusers looks up a component's base class in the component's library
    "NotApplicable": ".mapping",
    "PatchMapping": ".mapping",
    "ReNoise": ".renoise",
    "RegionRepairer": ".repair",
    "SOLVERS": ".schedulers",
    "StockInpainter": ".repair_inpainting",
    "best_of_n": ".best_of_n",
    "find_inpainter": ".repair",
    "map_region": ".tools.from_region",
}

__all__ = [
    "ARTIFACT_TYPES",
    "EMBEDDED_MODEL",
    "SOLVERS",
    "ArtifactCorruptionOutput",
    "ArtifactCorruptionPipeline",
    "ArtifactInjectionOutput",
    "ArtifactInjectionPipeline",
    "ArtifactType",
    "AutoencoderPCA",
    "BestOfN",
    "DenoisingInpainter",
    "DetectorGuidance",
    "GuidanceSettings",
    "HeldPhoto",
    "ModelMixin",
    "NotApplicable",
    "PatchMapping",
    "ReNoise",
    "RegionRepairer",
    "StockInpainter",
    "best_of_n",
    "find_inpainter",
    "map_region",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_pipeline("ArtifactInjectionPipeline", f"{__name__}.pipeline")
register_pipeline("ArtifactCorruptionPipeline", f"{__name__}.pipeline_corruption")
