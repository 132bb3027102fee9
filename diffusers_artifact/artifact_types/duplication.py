"""Duplication: an entity has a part once too often."""

from __future__ import annotations

from .record import ArtifactTypeRecord


DUPLICATION = ArtifactTypeRecord(
    name="duplication",
    plural="duplications",
    short_name="dup",
    color=(0, 114, 178),
    marker="o",
    label="duplicated {part}",
    clause="{owner} {have} {an_extra} {part}",
    clause_with_place="{owner} {have} {an_extra} {part} {place}",
)
