"""Artifact types that a dataset can be expected to have."""

from __future__ import annotations

from collections.abc import Mapping

from diffusers_artifact.mapping import ARTIFACT_TYPES, ArtifactType
from diffusers_artifact.tools import ARTIFACT_TYPE_OF_TOOL


def expected_types(counts: Mapping[str, int]) -> tuple[ArtifactType, ...]:
    """
    Return the types to count a dataset by, in display order: all that tools make, if it has any of them or is empty,
    and others that it has, such as corruptions.

    Args:
        counts (`Mapping[str, int]`): Number of artifacts by type.
    """
    of_tools = set(ARTIFACT_TYPE_OF_TOOL.values())
    present = {kind for kind in ARTIFACT_TYPES if counts.get(kind)}
    expected = present | of_tools if present & of_tools or not present else present
    return tuple(kind for kind in ARTIFACT_TYPES if kind in expected)
