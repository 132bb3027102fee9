"""Omission: a part is missing."""

from __future__ import annotations

from .record import ArtifactTypeRecord


OMISSION = ArtifactTypeRecord(
    name="omission",
    plural="omissions",
    short_name="omi",
    color=(213, 94, 0),
    marker="s",
    label="missing {part}",
    clause="{owners} {part} {are} missing",
    clause_with_place="{owners} {part} {are} missing: {they} should be {place}",
)
