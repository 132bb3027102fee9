"""
Artifact tools: pure functions from patch sets to a patch mapping (ArtiAgent §4.1).

A patch set is a `bool` array of shape `grid`, rows × columns of tokens. To add a tool, add a file here that ends in
its [`Tool`], and list that in `TOOLS`.
"""

from __future__ import annotations

from ..mapping import ArtifactType
from .add import ADD, add
from .distort import DISTORT, DISTORTION_KERNELS, DistortionKernel, distort
from .fuse import FUSE, fuse
from .geometry import artifact_mask, bbox_of_mask, patches_of_mask
from .remove import REMOVE, remove
from .tool import Tool


TOOLS: dict[str, Tool] = {tool.name: tool for tool in (ADD, REMOVE, DISTORT, FUSE)}
"""Tools by name."""

ARTIFACT_TYPE_OF_TOOL: dict[str, ArtifactType] = {tool.name: tool.artifact_type for tool in TOOLS.values()}

__all__ = [
    "ARTIFACT_TYPE_OF_TOOL",
    "DISTORTION_KERNELS",
    "TOOLS",
    "DistortionKernel",
    "Tool",
    "add",
    "artifact_mask",
    "bbox_of_mask",
    "distort",
    "fuse",
    "patches_of_mask",
    "remove",
]
