"""Kinds of repositories that can be pushed, one file each."""

from __future__ import annotations

from ..payload import Kind
from . import app, dataset, detector, lora, metric, pipeline, reward, vlm


KINDS: tuple[Kind, ...] = (
    vlm.KIND,
    detector.KIND,
    reward.KIND,
    lora.KIND,
    dataset.KIND,
    metric.KIND,
    pipeline.KIND,
    app.KIND,
)
"""All kinds, in the order of `artiagent push --help`."""


def find_kind(name: str) -> Kind:
    """
    Return the kind with a name.

    Raises:
        ValueError: `name` is not a kind.
    """
    for kind in KINDS:
        if kind.name == name:
            return kind
    raise ValueError(f"`name` must be one of {', '.join(kind.name for kind in KINDS)}, got {name!r}")
