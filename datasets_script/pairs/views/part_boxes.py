"""
Where the parts of things are in the clean image, as far as a pair knows it.

A pair records where flaws are in the flawed image. Two kinds of them tell where a part is in the clean one: it still
has what was removed, and what was doubled.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from diffusers_artifact.tools import bbox_of_mask

from ...schema.boxes import Box
from ...schema.pair import Artifact


def part_box(artifact: Artifact) -> Box | None:
    """
    The box in the clean image of the part that an artifact concerns, where it is known to the pixel: of an omission,
    whose mask is that part, and of a duplication, whose mask is that part moved.

    Args:
        artifact (`Artifact`): Of any type.

    Returns:
        `tuple[float, float, float, float]`: `(x_min, y_min, x_max, y_max)`, exclusive maxima, pixels; `None` where it
        is not known: for a copy that overlaps the part or may have lost patches beyond the border of the image; for a
        distortion, which records whole patches, up to a patch off; for a fusion, which is of no part.
    """
    if artifact.type == "omission":
        return artifact.bbox
    if artifact.type == "duplication" and not _overlaps(artifact) and not _may_be_cut(artifact):
        return bbox_of_mask(_moved_back(artifact))
    return None


def other_box(artifact: Artifact, others: Iterable[Artifact]) -> Box | None:
    """
    A box in the clean image without the part that an artifact concerns: that of a part of another name which does not
    touch it. It looks like any box of a part, so that nothing but the picture tells the two apart.

    Args:
        artifact (`Artifact`): Of any type.
        others (`Iterable[Artifact]`): Those of the same pair.

    Returns:
        `tuple[float, float, float, float]`: As of [`part_box`], of the first that there is; `None` without one.
    """
    place = part_box(artifact)
    boxes = (part_box(other) for other in others if other.part != artifact.part)
    return next((box for box in boxes if place and box and not _touch(box, place)), None)


def _touch(first: Box, second: Box) -> bool:
    return all(first[axis] <= second[axis + 2] and second[axis] <= first[axis + 2] for axis in (0, 1))


def _patch_side(artifact: Artifact) -> int:
    return artifact.mask.shape[0] // artifact.mapping.grid[0]


def _shift(artifact: Artifact) -> np.ndarray:
    """Rows and columns that a copy was moved by; one for all its patches."""
    mapping = artifact.mapping
    target, reference = (np.array(divmod(i[0], mapping.grid[1])) for i in (mapping.targets, mapping.references))
    return target - reference


def _overlaps(artifact: Artifact) -> bool:
    return not set(artifact.mapping.targets).isdisjoint(artifact.mapping.references)


def _may_be_cut(artifact: Artifact) -> bool:
    """Whether a copy touches a border that it was moved towards."""
    copy = artifact.mapping.target_patches()
    rows, columns = _shift(artifact)
    return bool(
        (rows > 0 and copy[-1].any())
        or (rows < 0 and copy[0].any())
        or (columns > 0 and copy[:, -1].any())
        or (columns < 0 and copy[:, 0].any())
    )


def _moved_back(artifact: Artifact) -> np.ndarray:
    """The mask of a copy, moved to where it was taken from."""
    rows, columns = _shift(artifact) * _patch_side(artifact)
    return np.roll(artifact.mask, (-rows, -columns), axis=(0, 1))
