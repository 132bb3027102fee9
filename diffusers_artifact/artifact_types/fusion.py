"""Fusion: two entities have grown together."""

from __future__ import annotations

from .record import ArtifactTypeRecord


FUSION = ArtifactTypeRecord(
    name="fusion",
    plural="fusions",
    short_name="fus",
    color=(170, 60, 140),
    marker="D",
    label="fused {couple}",
    clause="{both} merge into {each_other}",
    clause_with_place="{both} merge into {each_other} {place}",
    ending=", with no clear boundary between them",
    of_two_entities=True,
)
