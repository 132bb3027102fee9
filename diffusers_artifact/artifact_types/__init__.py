"""
The types of artifacts, each with its words and its colour.

A new type is a new file here, a line in `RECORDS` and its name in [`~diffusers_artifact.mapping.ArtifactType`].
"""

from __future__ import annotations

from ..mapping import ArtifactType
from .distortion import DISTORTION
from .duplication import DUPLICATION
from .fusion import FUSION
from .omission import OMISSION
from .record import ArtifactTypeRecord


RECORDS: dict[ArtifactType, ArtifactTypeRecord] = {
    record.name: record for record in (DUPLICATION, OMISSION, DISTORTION, FUSION)
}
"""The record of every type, in the order in which types are listed."""

__all__ = ["RECORDS", "ArtifactTypeRecord"]
