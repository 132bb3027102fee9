"""
Artifact tools: pure functions from patch sets to a patch mapping (ArtiAgent §4.1).

A patch set is a `bool` array of shape `grid`, rows × columns of tokens. A new tool is a new file here and a line in
`ARTIFACT_TYPE_OF_TOOL`.
"""

from ..mapping import ArtifactType
from .add import add
from .distort import DISTORTION_KERNELS, DistortionKernel, distort
from .fuse import fuse
from .geometry import artifact_mask, bbox_of_mask, patches_of_mask
from .remove import remove


ARTIFACT_TYPE_OF_TOOL: dict[str, ArtifactType] = {
    "add": "duplication",
    "remove": "omission",
    "distort": "distortion",
    "fuse": "fusion",
}

__all__ = [
    "ARTIFACT_TYPE_OF_TOOL",
    "DISTORTION_KERNELS",
    "DistortionKernel",
    "add",
    "artifact_mask",
    "bbox_of_mask",
    "distort",
    "fuse",
    "patches_of_mask",
    "remove",
]
