"""Corruption: a region has lost its shape and texture."""

from __future__ import annotations

from .record import ArtifactTypeRecord


CORRUPTION = ArtifactTypeRecord(
    name="corruption",
    plural="corruptions",
    short_name="cor",
    color=(190, 140, 0),
    marker="v",
    label="corrupted {thing}",
    clause="{the_thing} {thing_is} corrupted",
    clause_with_place="{the_thing}, {place}, {thing_is} corrupted",
    ending=": shape and texture do not hold together",
)
