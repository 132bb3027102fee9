"""Base class of the planners: what artifacts to make where, from what was perceived in a photo."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import torch

from diffusers_artifact.mapping import ArtifactType

from ...agents.perception import Perception, filter_perception
from ...agents.planning import Scene
from ...schema.pair import Artifact
from ...utils.seeds import derive_seed
from ..settings import CommonSettings


Settings = TypeVar("Settings", bound=CommonSettings)

Variants = Mapping[int, Sequence[Artifact]]
"""Artifacts of each variant of a photo, by its number."""


class Planner(ABC, Generic[Settings]):
    """
    Planner of the artifacts of a run.

    Args:
        settings (`CommonSettings`): Settings of the run; seed and limits are used.
        patch_size (`int`): Side of a patch of the model, in pixels.

    Attributes:
        types (`Mapping[str, str]`): Artifact type that each tool makes.
        nothing (`str`): Why a photo is left out, if there is no place for an artifact in it.
    """

    types: Mapping[str, ArtifactType]
    nothing: str

    def __init__(self, settings: Settings, patch_size: int) -> None:
        self.settings, self.patch_size = settings, patch_size

    def usable(self, perception: Perception) -> tuple[Perception, list[str]]:
        """
        Keep what is large enough to carry an artifact.

        Args:
            perception (`Perception`): In pixels of the image that the model sees.

        Returns:
            `tuple[Perception, list[str]]`: The entities and parts kept, and for each dropped one its reason.
        """
        return filter_perception(perception, self.patch_size, self.settings.min_part_patches)

    @abstractmethod
    def variants(
        self, scene: Scene, source_id: str, count: int, made: Counter[ArtifactType]
    ) -> tuple[dict[int, tuple[Artifact, ...]], dict[str, str]]:
        """
        Choose the artifacts of the variants of a photo. The first ones do not depend on how many there are.

        Args:
            scene (`Scene`): What was perceived.
            source_id (`str`): Photo.
            count (`int`): Number of variants.
            made (`Counter`): Artifacts made so far among the photos that this one depends on, by type.

        Returns:
            `tuple[dict[int, tuple[Artifact, ...]], dict[str, str]]`: Artifacts of each variant that has any, without
            texts and scores, and with `part_mask` for `mask`; and for each tool that found no place, why.
        """

    @abstractmethod
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
        """
        Choose, for each rejected artifact of a variant, another one that was not tried yet, if there is one.

        Args:
            scene (`Scene`): What was perceived.
            variants (`Mapping[int, Sequence[Artifact]]`): Artifacts that all variants of the photo were planned with.
            number (`int`): Number of the variant.
            kept (`Sequence[Artifact]`): Artifacts of the variant that were accepted.
            rejected (`Sequence[Artifact]`): Those that were not.
            tried (`Sequence[Artifact]`): All that were rejected so far, these included.
            generator (`torch.Generator`): Source of all choices.
        """

    def generator(self, name: str) -> torch.Generator:
        """Return a generator seeded with the run's seed and the name of what it is for."""
        return torch.Generator().manual_seed(derive_seed(self.settings.seed, name))
