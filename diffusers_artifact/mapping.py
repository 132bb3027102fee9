"""The patch mapping: which tokens of an artifact image borrow their content and position from which others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np


ArtifactType = Literal["duplication", "omission", "distortion", "fusion"]
ARTIFACT_TYPES: tuple[ArtifactType, ...] = get_args(ArtifactType)


@dataclass(frozen=True)
class PatchMapping:
    r"""
    Pairs of a *target* patch, where an artifact appears, and the *reference* patch that gives it content and position
    (ArtiAgent §4.1). A patch is a token of the diffusion transformer, 16×16 px for FLUX and SD3.

    Args:
        targets (`tuple[int, ...]`): Token indices, row-major, each at most once.
        references (`tuple[int, ...]`): As many token indices; one may serve several targets.
        grid (`tuple[int, int]`): Rows and columns of tokens.
        types (`tuple[str, ...]`, *optional*): Type of the artifact each pair belongs to (`"duplication"`,
            `"omission"`, `"distortion"` or `"fusion"`), which sets how many steps it is injected for. Empty: every
            pair is treated as a duplication.

    Raises:
        ValueError: unequal lengths, an index off the grid, a target listed twice, an unknown type.
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
                    f"`{name}` must lie on the {rows}x{columns} grid, 0 to {rows * columns - 1}, got {outside[0]}"
                )
        if len(set(self.targets)) != len(self.targets):
            twice = sorted({index for index in self.targets if self.targets.count(index) > 1})
            raise ValueError(f"`targets` must be unique, got {twice} more than once")
        if self.types and len(self.types) != len(self.targets):
            raise ValueError(
                f"`types` must be empty or as long as `targets`, got {len(self.types)} for {len(self.targets)}"
            )
        unknown = sorted(set(self.types) - set(ARTIFACT_TYPES))
        if unknown:
            raise ValueError(f"`types` must be among {ARTIFACT_TYPES}, got {unknown[0]!r}")

    def __len__(self) -> int:
        return len(self.targets)

    @classmethod
    def from_pairs(
        cls, pairs: Iterable[tuple[int, int]], grid: tuple[int, int], artifact_type: ArtifactType
    ) -> PatchMapping:
        """A mapping of one artifact from `(target, reference)` pairs, sorted by target."""
        ordered = sorted((int(target), int(reference)) for target, reference in pairs)
        return cls(
            targets=tuple(target for target, _ in ordered),
            references=tuple(reference for _, reference in ordered),
            grid=grid,
            types=(artifact_type,) * len(ordered),
        )

    @classmethod
    def empty(cls, grid: tuple[int, int]) -> PatchMapping:
        """A mapping that changes nothing."""
        return cls((), (), grid)

    @classmethod
    def union(cls, mappings: Iterable[PatchMapping]) -> PatchMapping:
        """
        The artifacts of one image together.

        Raises:
            ValueError: no mapping, different grids, a patch that is a target of two mappings, mixed typed and untyped.
        """
        parts = list(mappings)
        if not parts:
            raise ValueError("`mappings` must hold at least one mapping, got none")
        if len({part.grid for part in parts}) > 1:
            raise ValueError(f"`mappings` must share a grid, got {sorted({part.grid for part in parts})}")
        return cls(
            targets=sum((part.targets for part in parts), ()),
            references=sum((part.references for part in parts), ()),
            grid=parts[0].grid,
            types=sum((part.types for part in parts), ()),
        )

    def target_patches(self) -> np.ndarray:
        """The targets as a `bool` array of shape `grid`."""
        return self._as_patches(self.targets)

    def reference_patches(self) -> np.ndarray:
        """The references as a `bool` array of shape `grid`."""
        return self._as_patches(self.references)

    def _as_patches(self, indices: tuple[int, ...]) -> np.ndarray:
        patches = np.zeros(self.grid, dtype=bool)
        patches.flat[list(indices)] = True
        return patches


@dataclass(frozen=True)
class NotApplicable:
    """What a tool returns instead of a mapping when it has no legal one: an ordinary outcome, with its reason."""

    reason: str
