"""Planner of corruptions: which regions of a photo, by which method and to which level."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from diffusers_artifact.mapping import ArtifactType, PatchMapping

from ...agents.perception import Entity, Part, Perception, filter_perception
from ...agents.planning import Scene, shuffled
from ...schema.pair import Artifact
from ..settings import CorruptionRunSettings
from .base import Planner, Variants


CORRUPTION: ArtifactType = "corruption"
"""Name of the artifact type, and of the tool that makes it."""

SIGMA = "sigma"
"""Entry of an artifact's `parameters` that holds the level."""


class RegionPlanner(Planner[CorruptionRunSettings]):
    """
    Planner that chooses parts, entities without parts, and regions without a name. All variants of a photo have one
    method and one level, so that they share an inversion and the clean image; they differ in their regions.
    """

    types = {CORRUPTION: CORRUPTION}
    nothing = "no region fits"

    def usable(self, perception: Perception) -> tuple[Perception, list[str]]:
        # Entities may be as small as parts here: they are regions like them.
        pixels = self.settings.min_part_patches * self.patch_size**2
        least = max((pixels / entity.mask.size for entity in perception.entities), default=0.0)
        return filter_perception(perception, self.patch_size, self.settings.min_part_patches, min_entity_share=least)

    def variants(
        self, scene: Scene, source_id: str, count: int, made: Counter[ArtifactType]
    ) -> tuple[dict[int, tuple[Artifact, ...]], dict[str, str]]:
        generator = self.generator(source_id)
        levels = self.settings.corruption.levels(self.settings.model)
        method, sigma = levels[int(torch.randint(len(levels), (), generator=generator))]
        regions = [region for region in _regions(scene) if self._fits(scene, region)]
        used: Counter[int] = Counter()
        variants: dict[int, tuple[Artifact, ...]] = {}
        for variant in range(count if regions else 0):
            most = int(torch.randint(1, self.settings.max_artifacts + 1, (), generator=generator))
            # Those that fewer of the variants before have, in random order.
            order = sorted(shuffled(regions, generator), key=lambda region: used[region[1].instance_id])
            chosen = _disjoint(scene, order, np.zeros(scene.grid, dtype=bool))[:most]
            used.update(region.instance_id for _, region in chosen)
            variants[variant] = tuple(_artifact(scene, *region, method, sigma) for region in chosen)
        return variants, {} if regions else {CORRUPTION: self._too_large(scene)}

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
        first = variants[number][0]
        seen = {artifact.instance_id for artifact in (*kept, *tried)}
        occupied = np.zeros(scene.grid, dtype=bool)
        for artifact in kept:
            occupied |= artifact.mapping.target_patches()
        left = [
            region for region in _regions(scene) if region[1].instance_id not in seen and self._fits(scene, region)
        ]
        chosen = _disjoint(scene, shuffled(left, generator), occupied)[: len(rejected)]
        return [_artifact(scene, *region, first.kernel, first.parameters[SIGMA]) for region in chosen]

    def _fits(self, scene: Scene, region: tuple[Entity, Entity | Part]) -> bool:
        return scene.patches[region[1].instance_id].mean() <= self.settings.max_target_share

    def _too_large(self, scene: Scene) -> str:
        smallest = min(scene.patches[region.instance_id].mean() for _, region in _regions(scene))
        most = self.settings.max_target_share
        return f"every region is too large: the smallest takes {smallest:.0%} of the image, over {most:.0%}"


def _regions(scene: Scene) -> list[tuple[Entity, Entity | Part]]:
    """Return what can be corrupted, each with its entity: the parts of an entity, or the entity where it has none."""
    return [(entity, region) for entity in scene.perception.entities for region in (entity.parts or (entity,))]


def _disjoint(
    scene: Scene, regions: Iterable[tuple[Entity, Entity | Part]], occupied: np.ndarray
) -> list[tuple[Entity, Entity | Part]]:
    """Return the regions that share no patch with those before them, nor with patches that are taken."""
    chosen, occupied = [], occupied.copy()
    for entity, region in regions:
        patches = scene.patches[region.instance_id]
        if not (patches & occupied).any():
            chosen.append((entity, region))
            occupied |= patches
    return chosen


def _artifact(scene: Scene, entity: Entity, region: Entity | Part, method: str, sigma: float) -> Artifact:
    targets = np.flatnonzero(scene.patches[region.instance_id]).tolist()
    return Artifact(
        type=CORRUPTION,
        tool=CORRUPTION,
        kernel=method,
        entity=entity.name,
        part=region.name if isinstance(region, Part) else "",
        fused_entity="",
        instance_id=region.instance_id,
        # Its patches borrow from no others.
        mapping=PatchMapping.from_pairs(zip(targets, targets, strict=True), scene.grid, CORRUPTION),
        mask=region.mask,
        bbox=region.bbox,
        part_mask=region.mask,
        parameters={SIGMA: sigma},
    )
