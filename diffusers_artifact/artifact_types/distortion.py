"""Distortion: the pieces of a part are in the wrong places."""

from __future__ import annotations

from .record import ArtifactTypeRecord


DISTORTION = ArtifactTypeRecord(
    name="distortion",
    plural="distortions",
    short_name="dis",
    color=(0, 140, 105),
    marker="^",
    label="distorted {part}",
    clause="{owners} {part} {are} distorted",
    clause_with_place="{owners} {part}, {place}, {are} distorted",
    ending=": {their} pieces do not fit together",
)
