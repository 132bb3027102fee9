"""What a tool says of itself, so that others choose and call it without knowing it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ..mapping import ArtifactType, NotApplicable, PatchMapping


Subject = Literal["peripheral", "intermediate", "entities"]
"""What a tool works on: a part at the outline of its entity, a part within it, or two entities."""


def _no_options(grid: tuple[int, int]) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Tool:
    """
    An artifact tool.

    Args:
        name (`str`): As in `--tools`.
        artifact_type (`str`): Type of the artifacts it makes.
        description (`str`): What it does, in a few words that continue its name.
        works_on (`str`): `"peripheral"` or `"intermediate"` for a part, `"entities"` for two of them.
        function (`Callable`): Called as `function(region, other, occupied=…, generator=…)` with `bool` patch sets of
            shape `grid`: those of the part and of the entity it belongs to, or those of the two entities; and with the
            options below. It returns a [`PatchMapping`] or, where there is no legal one, [`NotApplicable`].
        kernels (`tuple[str, ...]`, *optional*): Ways it can work, for its argument `kernel`.
        avoids_same_parts (`bool`, *optional*, defaults to `False`): Whether it takes, as `same_parts`, the patches of
            other instances of the part.
        options_for (`Callable`, *optional*): Further arguments that a grid of `(rows, columns)` asks for.
    """

    name: str
    artifact_type: ArtifactType
    description: str
    works_on: Subject
    function: Callable[..., PatchMapping | NotApplicable]
    kernels: tuple[str, ...] = ()
    avoids_same_parts: bool = False
    options_for: Callable[[tuple[int, int]], dict[str, Any]] = _no_options
