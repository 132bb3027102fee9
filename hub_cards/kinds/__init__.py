"""What can be pushed: one file a kind, which says what belongs to it and how its card is made."""

from __future__ import annotations

from ..payload import Kind
from . import dataset, metric, pipeline, vlm


KINDS: tuple[Kind, ...] = (vlm.KIND, dataset.KIND, metric.KIND, pipeline.KIND)
"""In the order of `artiagent push --help`."""


def find_kind(name: str) -> Kind:
    """
    Return the kind of a name.

    Raises:
        ValueError: there is none.
    """
    for kind in KINDS:
        if kind.name == name:
            return kind
    raise ValueError(f"`name` must be one of {', '.join(kind.name for kind in KINDS)}, got {name!r}")
