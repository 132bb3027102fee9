"""Artifact injection for diffusion transformers: the pipeline, its solvers, tools and the embedded default model."""

from pathlib import Path

import diffusers
from diffusers import ModelMixin  # diffusers looks the base of a component's class up in the component's library

from .autoencoder import AutoencoderPCA
from .mapping import ARTIFACT_TYPES, ArtifactType, NotApplicable, PatchMapping
from .pipeline import ArtifactInjectionOutput, ArtifactInjectionPipeline
from .schedulers import SOLVERS


EMBEDDED_MODEL = Path(__file__).parent / "embedded"
"""Folder of the embedded default model: pass it to `from_pretrained`."""

# A saved pipeline names its class, and `DiffusionPipeline.from_pretrained` looks that name up in diffusers.
diffusers.ArtifactInjectionPipeline = ArtifactInjectionPipeline

__all__ = [
    "ARTIFACT_TYPES",
    "EMBEDDED_MODEL",
    "SOLVERS",
    "ArtifactInjectionOutput",
    "ArtifactInjectionPipeline",
    "ArtifactType",
    "AutoencoderPCA",
    "ModelMixin",
    "NotApplicable",
    "PatchMapping",
]
