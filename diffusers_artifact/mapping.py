"""Patch mappings: which tokens of an artifact image borrow content and position from which others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np


ArtifactType = Literal["duplication", "omission", "distortion", "fusion", "corruption"]
ARTIFACT_TYPES: tuple[ArtifactType, ...] = get_args(ArtifactType)


@dataclass(frozen=True)
class PatchMapping:
    r"""
    Pairs of a *target* patch, where an artifact appears, and the *reference* patch whose content and position it takes
    (ArtiAgent §4.1). A patch is one token of the diffusion transformer, 16×16 px for FLUX and SD3.

    Args:
        targets (`tuple[int, ...]`): Row-major token indices, without duplicates.
        references (`tuple[int, ...]`): As many token indices. Several targets may share a reference.
        grid (`tuple[int, int]`): Rows and columns of tokens.
        types (`tuple[str, ...]`, *optional*): Artifact type of each pair (`"duplication"`, `"omission"`,
            `"distortion"` or `"fusion"`), which sets the number of steps with position injection. If empty, every pair
            counts as a duplication. The patches of a `"corruption"`, which borrow from no other, are their own
            references.

    Raises:
        ValueError: The lengths differ, an index is off the grid, a target is listed twice, or a type is unknown.
    """

    targets: tuple[int, ...]
    references: tuple[int, ...]
    grid: tuple[int, int]
    types: tuple[ArtifactType, ...] = ()

    def __post_init__(self) -> None:
        rows, columns = self.grid
        if rows < 1 or columns < 1:
            raise ValueError(f"`grid` must be two positive numbers, got {self.grid}")
        if len(self.targets) != len(self.references):
            raise ValueError(
                f"`targets` and `references` must be equally long, got {len(self.targets)} and {len(self.references)}"
            )
        for name, indices in (("targets", self.targets), ("references", self.references)):
            outside = [index for index in indices if not 0 <= index < rows * columns]
            if outside:
                raise ValueError(
                    f"`{name}` must be token indices from 0 to {rows * columns - 1} on the {rows}x{columns} grid, "
                    f"got {outside[0]}"
                )
        if len(set(self.targets)) != len(self.targets):
            twice = sorted({index for index in self.targets if self.targets.count(index) > 1})
            raise ValueError(f"`targets` must be unique, got {twice} more than once")
        if self.types and len(self.types) != len(self.targets):
            raise ValueError(
                f"`types` must be empty or as long as `targets`, got {len(self.types)} types for "
                f"{len(self.targets)} targets"
            )
        unknown = sorted(set(self.types) - set(ARTIFACT_TYPES))
        if unknown:
            raise ValueError(f"`types` must be among {', '.join(ARTIFACT_TYPES)}, got {unknown[0]!r}")

    def __len__(self) -> int:
        return len(self.targets)

    @classmethod
    def from_pairs(
        cls, pairs: Iterable[tuple[int, int]], grid: tuple[int, int], artifact_type: ArtifactType
    ) -> PatchMapping:
        """
        Build the mapping of one artifact.

        Args:
            pairs (`Iterable[tuple[int, int]]`): `(target, reference)` token indices, in any order.
            grid (`tuple[int, int]`): Rows and columns of tokens.
            artifact_type (`str`): Type of every pair.

        Returns:
            [`PatchMapping`]: Pairs sorted by target.

        Raises:
            ValueError: An index is off the grid, a target is listed twice, or the type is unknown.
        """
        ordered = sorted((int(target), int(reference)) for target, reference in pairs)
        return cls(
            targets=tuple(target for target, _ in ordered),
            references=tuple(reference for _, reference in ordered),
            grid=grid,
            types=(artifact_type,) * len(ordered),
        )

    @classmethod
    def empty(cls, grid: tuple[int, int]) -> PatchMapping:
        """Build a mapping without pairs, which leaves the image unchanged."""
        return cls((), (), grid)

    @classmethod
    def union(cls, mappings: Iterable[PatchMapping]) -> PatchMapping:
        """
        Join the mappings of several artifacts of one image.

        Raises:
            ValueError: There is no mapping, the grids differ, two mappings share a target, or only some have types.
        """
        parts = list(mappings)
        if not parts:
            raise ValueError("`mappings` must hold at least one mapping, got none")
        if len({part.grid for part in parts}) > 1:
            raise ValueError(f"`mappings` must share one grid, got {sorted({part.grid for part in parts})}")
        return cls(
            targets=sum((part.targets for part in parts), ()),
            references=sum((part.references for part in parts), ()),
            grid=parts[0].grid,
            types=sum((part.types for part in parts), ()),
        )

    def target_patches(self) -> np.ndarray:
        """Return the targets as a `bool` array of shape `grid`."""
        return self._as_patches(self.targets)

    def reference_patches(self) -> np.ndarray:
        """Return the references as a `bool` array of shape `grid`."""
        return self._as_patches(self.references)

    def _as_patches(self, indices: tuple[int, ...]) -> np.ndarray:
        patches = np.zeros(self.grid, dtype=bool)
        patches.flat[list(indices)] = True
        return patches


@dataclass(frozen=True)
class NotApplicable:
    """
    Result of a tool that finds no legal mapping, which is an ordinary outcome and no error.

    Args:
        reason (`str`): Why there is none, without a full stop.
    """

    reason: str
