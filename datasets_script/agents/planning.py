"""The synthesis agent's choices: which artifacts to make of what was perceived."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from diffusers_artifact.mapping import ArtifactType, NotApplicable, PatchMapping
from diffusers_artifact.tools import ARTIFACT_TYPE_OF_TOOL, DISTORTION_KERNELS, add, distort, fuse, remove
from diffusers_artifact.tools.geometry import artifact_mask, bbox_of_mask, patches_of_mask

from ..schema.pair import Artifact
from ..schema.perception import Entity, Part, Perception


@dataclass(frozen=True)
class Scene:
    """What was perceived in one image, with everything also as `bool` patch sets of shape `grid`."""

    perception: Perception
    grid: tuple[int, int]
    patch_size: int
    patches: dict[int, np.ndarray]
    """Patch set of every entity and part by `instance_id`."""

    @classmethod
    def of(cls, perception: Perception, patch_size: int) -> Scene:
        regions: list[Entity | Part] = [*perception.entities, *(p for e in perception.entities for p in e.parts)]
        height, width = regions[0].mask.shape
        return cls(
            perception,
            (height // patch_size, width // patch_size),
            patch_size,
            {region.instance_id: patches_of_mask(region.mask, patch_size) for region in regions},
        )

    def parts(self, level: str) -> list[tuple[Entity, Part]]:
        return [(entity, part) for entity in self.perception.entities for part in entity.parts if part.level == level]

    def same_parts(self, part: Part) -> np.ndarray:
        """Patches of all other instances of the same part."""
        others = np.zeros(self.grid, dtype=bool)
        for entity in self.perception.entities:
            for other in entity.parts:
                if other.name == part.name and other.instance_id != part.instance_id:
                    others |= self.patches[other.instance_id]
        return others


@dataclass(frozen=True)
class Choice:
    """
    What a tool is to work on, or did.

    Attributes:
        tool (`str`): The tool.
        instance_id (`int`): Of the part, or of the entity of a fusion.
        kernel (`str`): The kernel; empty for any.
    """

    tool: str
    instance_id: int
    kernel: str = ""

    @classmethod
    def of(cls, artifact: Artifact) -> Choice:
        """Return the choice that an artifact is made of."""
        return cls(artifact.tool, artifact.instance_id, artifact.kernel)

    @property
    def with_any_kernel(self) -> Choice:
        return Choice(self.tool, self.instance_id)


@dataclass(frozen=True, eq=False)
class Proposal:
    """
    One place for a tool to work on.

    Attributes:
        entity (`Entity`): What it concerns, or the first of two.
        mapping (`PatchMapping` or `NotApplicable`): What the tool makes of it, or why nothing.
        part (`Part`, *optional*): The part of `entity`, but for a fusion.
        second (`Entity`, *optional*): The second entity of a fusion.
        kernel (`str`): The kernel, for tools that have one.
    """

    entity: Entity
    mapping: PatchMapping | NotApplicable
    part: Part | None = None
    second: Entity | None = None
    kernel: str = ""

    @property
    def subject(self) -> Entity | Part:
        """What the tool works on."""
        return self.part or self.entity


def shuffled(items: Sequence[Any], generator: torch.Generator) -> list[Any]:
    return [items[i] for i in torch.randperm(len(items), generator=generator).tolist()]


def propose_on_part(
    tool: Callable[..., PatchMapping | NotApplicable], scene: Scene, occupied: np.ndarray, generator: torch.Generator
) -> Iterator[Proposal]:
    for entity, part in shuffled(scene.parts("peripheral"), generator):
        mapping = tool(
            scene.patches[part.instance_id],
            scene.patches[entity.instance_id],
            same_parts=scene.same_parts(part),
            occupied=occupied,
            generator=generator,
        )
        yield Proposal(entity, mapping, part)


def propose_distort(scene: Scene, occupied: np.ndarray, generator: torch.Generator) -> Iterator[Proposal]:
    for entity, part in shuffled(scene.parts("intermediate"), generator):
        for kernel in shuffled(DISTORTION_KERNELS, generator):
            mapping = distort(
                scene.patches[part.instance_id],
                entity=scene.patches[entity.instance_id],
                kernel=kernel,
                occupied=occupied,
                generator=generator,
            )
            yield Proposal(entity, mapping, part, kernel=kernel)


def propose_fuse(scene: Scene, occupied: np.ndarray, generator: torch.Generator) -> Iterator[Proposal]:
    # The paper's two patches are a thin seam on its grids of 30 and more, and a third of the image on one of 16.
    band_radius = 2 if min(scene.grid) >= 30 else 1
    entities = scene.perception.entities
    couples = [(a, b) for i, a in enumerate(entities) for b in entities[i + 1 :]]
    for first, second in shuffled(couples, generator):
        mapping = fuse(
            scene.patches[first.instance_id],
            scene.patches[second.instance_id],
            occupied=occupied,
            band_radius=band_radius,
            generator=generator,
        )
        yield Proposal(first, mapping, second=second)


PROPOSERS: dict[str, Callable[[Scene, np.ndarray, torch.Generator], Iterator[Proposal]]] = {
    "add": partial(propose_on_part, add),
    "remove": partial(propose_on_part, remove),
    "distort": propose_distort,
    "fuse": propose_fuse,
}


def plan_artifacts(
    scene: Scene,
    tools: Sequence[str],
    num_artifacts: int,
    counts: Counter[ArtifactType],
    generator: torch.Generator,
    max_target_share: float = 1.0,
    avoid: frozenset[Choice] = frozenset(),
    occupied: np.ndarray | None = None,
) -> tuple[list[Artifact], dict[str, str]]:
    """
    Choose up to `num_artifacts` artifacts for one image, on disjoint patches.

    Args:
        scene (`Scene`): What was perceived.
        tools (`Sequence[str]`): Tools allowed, of `"add"`, `"remove"`, `"distort"`, `"fuse"`.
        num_artifacts (`int`): Most artifacts.
        counts (`Counter`): Artifacts made so far by type; rarer types are tried first, ties in random order.
        generator (`torch.Generator`): Source of all choices.
        max_target_share (`float`): Largest share of the image that one artifact may take.
        avoid (`frozenset[Choice]`): Choices that other variants of the image have already, or that were rejected; one
            without a kernel stands for all kernels.
        occupied (`np.ndarray` of shape `grid`, `bool`, *optional*): Patches that are taken already.

    Returns:
        `tuple[list[Artifact], dict[str, str]]`: the artifacts, with no texts and scores yet; and for each tool that
        had no legal mapping, why (of the last one tried).
    """
    occupied = np.zeros(scene.grid, dtype=bool) if occupied is None else occupied.copy()
    planned: list[Artifact] = []
    reasons: dict[str, str] = {}
    counts = counts.copy()
    while len(planned) < num_artifacts:
        order = sorted(shuffled(tools, generator), key=lambda tool: counts[ARTIFACT_TYPE_OF_TOOL[tool]])
        for tool in order:
            artifact = _first_applicable(tool, scene, occupied, generator, max_target_share, avoid, reasons)
            if artifact is not None:
                break
        else:
            break
        planned.append(artifact)
        counts[artifact.type] += 1
        occupied |= artifact.mapping.target_patches() | artifact.mapping.reference_patches()
    return planned, reasons


def _first_applicable(
    tool: str,
    scene: Scene,
    occupied: np.ndarray,
    generator: torch.Generator,
    max_target_share: float,
    avoid: frozenset[Choice],
    reasons: dict[str, str],
) -> Artifact | None:
    reasons.setdefault(tool, "no fitting part or pair of entities in the image")
    for proposal in PROPOSERS[tool](scene, occupied, generator):
        subject, mapping, second = proposal.subject, proposal.mapping, proposal.second
        choice = Choice(tool, subject.instance_id, proposal.kernel)
        if avoid & {choice, choice.with_any_kernel}:
            reasons[tool] = "tried already, in this variant of the image or another"
            continue
        if isinstance(mapping, NotApplicable):
            reasons[tool] = mapping.reason
            continue
        if (share := mapping.target_patches().mean()) > max_target_share:
            reasons[tool] = f"it would take {share:.0%} of the image, over {max_target_share:.0%}"
            continue
        del reasons[tool]
        region = subject.mask if second is None else subject.mask | second.mask
        mask = artifact_mask(mapping, region, scene.patch_size)
        return Artifact(
            type=ARTIFACT_TYPE_OF_TOOL[tool],
            tool=tool,
            kernel=proposal.kernel,
            entity=proposal.entity.name,
            part=proposal.part.name if proposal.part else "",
            fused_entity=second.name if second else "",
            instance_id=subject.instance_id,
            mapping=mapping,
            mask=mask,
            bbox=bbox_of_mask(mask),
        )
    return None
