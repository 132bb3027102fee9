"""Planning: which artifacts to inject where, given what was perceived."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from diffusers_artifact.mapping import ArtifactType, NotApplicable, PatchMapping
from diffusers_artifact.tools import ARTIFACT_TYPE_OF_TOOL, TOOLS, Tool
from diffusers_artifact.tools.geometry import artifact_mask, bbox_of_mask, patches_of_mask

from ..schema.pair import Artifact
from ..schema.perception import Entity, Part, Perception


@dataclass(frozen=True)
class Scene:
    """
    A perception with the masks of its entities and parts as patch sets.

    Attributes:
        perception (`Perception`): What was perceived in the image.
        grid (`tuple[int, int]`): Rows and columns of patches.
        patch_size (`int`): Side of a patch in pixels.
        patches (`dict[int, np.ndarray]`): Patch set of every entity and part by `instance_id`, `bool` of shape `grid`.
    """

    perception: Perception
    grid: tuple[int, int]
    patch_size: int
    patches: dict[int, np.ndarray]

    @classmethod
    def of(cls, perception: Perception, patch_size: int) -> Scene:
        """
        Create the scene of a perception with at least one entity.

        Args:
            perception (`Perception`): In pixels of the image that the model sees.
            patch_size (`int`): Side of a patch in pixels.
        """
        regions: list[Entity | Part] = [*perception.entities, *(p for e in perception.entities for p in e.parts)]
        height, width = regions[0].mask.shape
        return cls(
            perception,
            (height // patch_size, width // patch_size),
            patch_size,
            {region.instance_id: patches_of_mask(region.mask, patch_size) for region in regions},
        )

    def parts(self, level: str) -> list[tuple[Entity, Part]]:
        """Return all parts of a level, each with its entity."""
        return [(entity, part) for entity in self.perception.entities for part in entity.parts if part.level == level]

    def same_parts(self, part: Part) -> np.ndarray:
        """Return the patches of all other instances of the same part."""
        others = np.zeros(self.grid, dtype=bool)
        for entity in self.perception.entities:
            for other in entity.parts:
                if other.name == part.name and other.instance_id != part.instance_id:
                    others |= self.patches[other.instance_id]
        return others


@dataclass(frozen=True)
class Choice:
    """
    A tool, and what it works on.

    Attributes:
        tool (`str`): Name of the tool.
        instance_id (`int`): Number of the part, or of the first entity of a fusion.
        kernel (`str`): Name of the kernel; empty for any.
    """

    tool: str
    instance_id: int
    kernel: str = ""

    @classmethod
    def of(cls, artifact: Artifact) -> Choice:
        """Return the choice that led to an artifact."""
        return cls(artifact.tool, artifact.instance_id, artifact.kernel)

    @property
    def with_any_kernel(self) -> Choice:
        """Return the choice without its kernel."""
        return Choice(self.tool, self.instance_id)


@dataclass(frozen=True, eq=False)
class Proposal:
    """
    A place for a tool to work on, and the mapping it makes there.

    Attributes:
        entity (`Entity`): The entity concerned, or the first of two.
        mapping (`PatchMapping` or `NotApplicable`): Mapping of the tool, or why there is none.
        part (`Part`, *optional*): Part of `entity`; `None` for a fusion.
        second (`Entity`, *optional*): Second entity of a fusion.
        kernel (`str`): Name of the kernel, for tools with kernels.
    """

    entity: Entity
    mapping: PatchMapping | NotApplicable
    part: Part | None = None
    second: Entity | None = None
    kernel: str = ""

    @property
    def subject(self) -> Entity | Part:
        """Return the part or entity that the tool works on."""
        return self.part or self.entity


def shuffled(items: Sequence[Any], generator: torch.Generator) -> list[Any]:
    """Return a list of the items in random order."""
    return [items[i] for i in torch.randperm(len(items), generator=generator).tolist()]


def propose(tool: Tool, scene: Scene, occupied: np.ndarray, generator: torch.Generator) -> Iterator[Proposal]:
    """
    Try a tool on everything in the scene that it works on, with each of its kernels, in random order.

    Args:
        tool (`Tool`): The tool.
        scene (`Scene`): What was perceived.
        occupied (`np.ndarray` of shape `grid`, `bool`): Patches that are taken already.
        generator (`torch.Generator`): Source of all choices.

    Returns:
        `Iterator[Proposal]`: A proposal for each place and kernel, lazily.
    """
    options = tool.options_for(scene.grid)
    for entity, part, second in shuffled(_subjects(tool, scene), generator):
        region, other = (entity, second) if part is None else (part, entity)
        if tool.avoids_same_parts:
            options["same_parts"] = scene.same_parts(part)
        for kernel in shuffled(tool.kernels, generator) if tool.kernels else [""]:
            mapping = tool.function(
                scene.patches[region.instance_id],
                scene.patches[other.instance_id],
                occupied=occupied,
                generator=generator,
                **options,
                **({"kernel": kernel} if kernel else {}),
            )
            yield Proposal(entity, mapping, part, second, kernel)


def _subjects(tool: Tool, scene: Scene) -> list[tuple[Entity, Part | None, Entity | None]]:
    """Return an entity with a part, or with another entity, for each place that the tool works on."""
    if tool.works_on == "entities":
        entities = scene.perception.entities
        return [(first, None, second) for i, first in enumerate(entities) for second in entities[i + 1 :]]
    return [
        (entity, part, None)
        for entity, part in scene.parts(tool.works_on)
        if not (part.optional and tool.spares_optional_parts)
    ]


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
        tools (`Sequence[str]`): Allowed tools, of `"add"`, `"remove"`, `"distort"`, `"fuse"`.
        num_artifacts (`int`): Maximum number of artifacts.
        counts (`Counter`): Artifacts made so far by type. Rarer types are tried first, ties in random order.
        generator (`torch.Generator`): Source of all choices.
        max_target_share (`float`, *optional*, defaults to 1.0): Largest share of the image that one artifact may take,
            in [0, 1].
        avoid (`frozenset[Choice]`, *optional*): Choices already made for other variants of the image, or rejected. A
            choice without a kernel stands for all kernels.
        occupied (`np.ndarray` of shape `grid`, `bool`, *optional*): Patches that are taken already.

    Returns:
        `tuple[list[Artifact], dict[str, str]]`: The artifacts, without texts and scores, and with `part_mask` for
        `mask`; and for each tool without a legal mapping, why the last attempt failed.
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
    for proposal in propose(TOOLS[tool], scene, occupied, generator):
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
        part_mask = artifact_mask(mapping, region, scene.patch_size)
        return Artifact(
            type=ARTIFACT_TYPE_OF_TOOL[tool],
            tool=tool,
            kernel=proposal.kernel,
            entity=proposal.entity.name,
            part=proposal.part.name if proposal.part else "",
            fused_entity=second.name if second else "",
            instance_id=subject.instance_id,
            mapping=mapping,
            mask=part_mask,
            bbox=bbox_of_mask(part_mask),
            part_mask=part_mask,
        )
    return None
