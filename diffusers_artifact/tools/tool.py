"""Description of a tool, by which callers choose it and know its arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ..mapping import ArtifactType, NotApplicable, PatchMapping


Subject = Literal["peripheral", "intermediate", "entities"]
"""Subject of a tool: a part at the outline of its entity, a part within it, or two entities."""


def _no_options(grid: tuple[int, int]) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Tool:
    """
    An artifact tool and its arguments.

    Args:
        name (`str`): Name of the tool.
        artifact_type (`str`): Type of the artifacts that it makes.
        description (`str`): Its effect in a few words, without a full stop.
        works_on (`str`): `"peripheral"` or `"intermediate"` for a part, `"entities"` for two entities.
        function (`Callable`): Called as `function(region, other, occupied=…, generator=…)` with `bool` patch sets of
            shape `grid`, either of a part and the entity it belongs to or of two entities, and with the options below.
            It returns a [`PatchMapping`] or, if there is no legal one, [`NotApplicable`].
        kernels (`tuple[str, ...]`, *optional*): Legal values of its argument `kernel`, if it has one.
        avoids_same_parts (`bool`, *optional*, defaults to `False`): Whether it has the argument `same_parts`, for the
            patches of other instances of the part.
        spares_optional_parts (`bool`, *optional*, defaults to `False`): Whether it leaves parts alone without which
            their entity looks whole.
        options_for (`Callable`, *optional*): Called with a grid of `(rows, columns)`; returns further arguments that
            suit it.
    """

    name: str
    artifact_type: ArtifactType
    description: str
    works_on: Subject
    function: Callable[..., PatchMapping | NotApplicable]
    kernels: tuple[str, ...] = ()
    avoids_same_parts: bool = False
    spares_optional_parts: bool = False
    options_for: Callable[[tuple[int, int]], dict[str, Any]] = _no_options
