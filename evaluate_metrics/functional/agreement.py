"""Agreement between annotators: Cohen's kappa of their answers, and F1 between their boxes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence


Box = Sequence[float]


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> float:
    """
    Compute Cohen's kappa: how far two annotators agree beyond what their shares of each answer give by chance.

    Args:
        first, second (`Sequence[str]` of length `items`): Their answers to the same items.

    Returns:
        `float`: Up to 1, and 0 for agreement by chance; NaN without items, and where both always give one and the same
        answer, since chance then explains everything.

    Raises:
        ValueError: Lengths differ.

    Example: they agree on 3 of 4 images, and would on half of them by chance.

    ```python
    >>> cohen_kappa(["yes", "yes", "no", "no"], ["yes", "no", "no", "no"])
    0.5

    ```
    """
    _check_lengths(first, second)
    if not first:
        return math.nan
    observed = sum(one == other for one, other in zip(first, second, strict=True)) / len(first)
    shares, others = Counter(first), Counter(second)
    expected = sum(shares[answer] * others[answer] for answer in shares) / len(first) ** 2
    return (observed - expected) / (1 - expected) if expected < 1 else math.nan


def box_agreement(first: Sequence[Sequence[Box]], second: Sequence[Sequence[Box]], threshold: float = 0.5) -> float:
    """
    Compute the F1 between the boxes of two annotators, over all images together. Boxes are matched one to one, those
    of the largest IoU first, so that it does not matter who is first.

    Args:
        first, second (`Sequence[Sequence[Box]]` of length `images`): Their boxes of each image,
            `(x_min, y_min, x_max, y_max)` in pixels with exclusive maxima.
        threshold (`float`, *optional*, defaults to 0.5): Least IoU of a match.

    Returns:
        `float` in [0, 1]; NaN without any box.

    Raises:
        ValueError: Lengths differ.

    Example: one of three boxes has a counterpart.

    ```python
    >>> round(box_agreement([[(0, 0, 10, 10)]], [[(0, 0, 10, 8), (20, 20, 30, 30)]]), 3)
    0.667

    ```
    """
    _check_lengths(first, second)
    matched = total = 0
    for one, other in zip(first, second, strict=True):
        total += len(one) + len(other)
        pairs = sorted(
            ((box_iou(a, b), i, j) for i, a in enumerate(one) for j, b in enumerate(other)), key=lambda pair: -pair[0]
        )
        taken: tuple[set[int], set[int]] = (set(), set())
        for iou, i, j in pairs:
            if iou >= threshold and i not in taken[0] and j not in taken[1]:
                taken[0].add(i)
                taken[1].add(j)
        matched += len(taken[0])
    return 2 * matched / total if total else math.nan


def box_iou(first: Box, second: Box) -> float:
    """Compute the intersection over union of two boxes, 0 if neither has an area."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return shared / (areas - shared) if areas > shared else 0.0


def _check_lengths(first: Sequence[object], second: Sequence[object]) -> None:
    if len(first) != len(second):
        raise ValueError(f"`second` must have the length of `first`, {len(first)}, got {len(second)}")
