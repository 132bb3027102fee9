"""
Boxes of parts in the clean image, as far as a pair tells them.

A pair records where artifacts are in the artifact image. Two types also tell where a part is in the clean image, which
still has the part that was removed (omission) or copied (duplication). The mask of the part tells it; the mask of the
artifact is what changed.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from diffusers_artifact.tools import bbox_of_mask

from ...schema.boxes import Box
from ...schema.pair import Artifact


def part_box(artifact: Artifact) -> Box | None:
    """
    Find the box, in the clean image, of the part that an artifact concerns. It is known to the pixel for an omission,
    whose `part_mask` is the part, and for a duplication, whose `part_mask` is the moved part.

    Args:
        artifact (`Artifact`): An artifact of any type.

    Returns:
        `tuple[float, float, float, float]`: `(x_min, y_min, x_max, y_max)`, exclusive maxima, px; `None` where it is
        not known: for a copy that overlaps the part or may be cut off at the border of the image, for a distortion,
        which records whole patches, and for a fusion, which concerns no part.
    """
    if artifact.type == "omission":
        return bbox_of_mask(artifact.part_mask)
    if artifact.type == "duplication" and not _overlaps(artifact) and not _may_be_cut(artifact):
        return bbox_of_mask(_moved_back(artifact))
    return None


def other_box(artifact: Artifact, others: Iterable[Artifact]) -> Box | None:
    """
    Find a box, in the clean image, that does not contain the part which an artifact concerns: the box of a part with
    another name that does not touch it. Both are boxes of parts, so only the image tells them apart.

    Args:
        artifact (`Artifact`): An artifact of any type.
        others (`Iterable[Artifact]`): Artifacts of the same pair.

    Returns:
        `tuple[float, float, float, float]`: The first such box, as in [`part_box`]; `None` if there is none.
    """
    place = part_box(artifact)
    boxes = (part_box(other) for other in others if other.part != artifact.part)
    return next((box for box in boxes if place and box and not _touch(box, place)), None)


def _touch(first: Box, second: Box) -> bool:
    return all(first[axis] <= second[axis + 2] and second[axis] <= first[axis + 2] for axis in (0, 1))


def _patch_side(artifact: Artifact) -> int:
    return artifact.part_mask.shape[0] // artifact.mapping.grid[0]


def _shift(artifact: Artifact) -> np.ndarray:
    """Compute the rows and columns that a copy was moved by, which are equal for all its patches."""
    mapping = artifact.mapping
    target, reference = (np.array(divmod(i[0], mapping.grid[1])) for i in (mapping.targets, mapping.references))
    return target - reference


def _overlaps(artifact: Artifact) -> bool:
    return not set(artifact.mapping.targets).isdisjoint(artifact.mapping.references)


def _may_be_cut(artifact: Artifact) -> bool:
    """Return whether a copy touches a border that it was moved towards."""
    copy = artifact.mapping.target_patches()
    rows, columns = _shift(artifact)
    return bool(
        (rows > 0 and copy[-1].any())
        or (rows < 0 and copy[0].any())
        or (columns > 0 and copy[:, -1].any())
        or (columns < 0 and copy[:, 0].any())
    )


def _moved_back(artifact: Artifact) -> np.ndarray:
    """Move a copy back to where it was copied from."""
    rows, columns = _shift(artifact) * _patch_side(artifact)
    return np.roll(artifact.part_mask, (-rows, -columns), axis=(0, 1))
