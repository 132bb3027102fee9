"""
Artifact types, each with its words and its colour.

To add a type, add a file here, list it in `RECORDS` and name it in [`~diffusers_artifact.mapping.ArtifactType`].
"""

from __future__ import annotations

from ..mapping import ArtifactType
from .corruption import CORRUPTION
from .distortion import DISTORTION
from .duplication import DUPLICATION
from .fusion import FUSION
from .omission import OMISSION
from .record import ArtifactTypeRecord


RECORDS: dict[ArtifactType, ArtifactTypeRecord] = {
    record.name: record for record in (DUPLICATION, OMISSION, DISTORTION, FUSION, CORRUPTION)
}
"""Record of every type, in display order."""

__all__ = ["RECORDS", "ArtifactTypeRecord"]
