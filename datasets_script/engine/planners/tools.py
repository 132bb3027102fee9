"""Planner of artifacts that tools make by letting patches borrow from others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from diffusers_artifact.mapping import ArtifactType
from diffusers_artifact.tools import ARTIFACT_TYPE_OF_TOOL

from ...agents.planning import Choice, Scene, plan_artifacts
from ...schema.pair import Artifact
from ..settings import RunSettings
from .base import Planner, Variants


class ToolPlanner(Planner[RunSettings]):
    """Planner that lets the tools of the settings try the perceived entities and parts."""

    types = ARTIFACT_TYPE_OF_TOOL
    nothing = "no tool fits"

    def variants(
        self, scene: Scene, source_id: str, count: int, made: Counter[ArtifactType]
    ) -> tuple[dict[int, tuple[Artifact, ...]], dict[str, str]]:
        settings, generator = self.settings, self.generator(source_id)
        variants: dict[int, tuple[Artifact, ...]] = {}
        avoid: set[Choice] = set()
        reasons: dict[str, str] = {}
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

    def replacements(
        self,
        scene: Scene,
        variants: Variants,
        number: int,
        kept: Sequence[Artifact],
        rejected: Sequence[Artifact],
        tried: Sequence[Artifact],
        generator: torch.Generator,
    ) -> list[Artifact]:
        occupied = np.zeros(scene.grid, dtype=bool)
        for artifact in kept:
            occupied |= artifact.mapping.target_patches() | artifact.mapping.reference_patches()
        avoid = {
            Choice.of(artifact).with_any_kernel
            for other, artifacts in variants.items()
            if other != number
            for artifact in artifacts
        }
        for artifact in tried:
            if artifact.tool == "add":  # the same part may be copied to another place
                occupied |= artifact.mapping.target_patches()
            else:
                avoid.add(Choice.of(artifact))
        replacements: list[Artifact] = []
        for artifact in rejected:
            found, _ = plan_artifacts(
                scene,
                (artifact.tool,),
                1,
                Counter(),
                generator,
                self.settings.max_target_share,
                frozenset(avoid),
                occupied,
            )
            for new in found:
                occupied |= new.mapping.target_patches() | new.mapping.reference_patches()
            replacements += found
        return replacements
