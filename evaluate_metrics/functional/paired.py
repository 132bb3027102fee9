"""Means of two systems at the same samples, and their difference, with intervals of pairs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from .intervals import Bootstrap, honest_at_the_ends, score_with_intervals


def paired_means(
    first: Sequence[float],
    second: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    is_share: bool = False,
    bootstrap: Bootstrap | None = None,
) -> dict[str, Any]:
    """
    Compare the means of two systems at the same samples. The bootstrap draws samples, and with a sample both of its
    values, so that what makes a sample hard for both systems does not widen the interval of the difference.

    Args:
        first, second (`Sequence[float]`): Value of each sample for each system, in the same order.
        groups (`Sequence`, *optional*): Group of each sample, such as its prompt. The samples of a group resemble one
            another, so whole groups are drawn. By default, each sample is a group.
        is_share (`bool`, *optional*, defaults to `False`): Whether values are 0 or 1. Intervals without width are then
            those of Wilson, see [`~evaluate_metrics.functional.intervals.honest_at_the_ends`].
        bootstrap (`Bootstrap`, *optional*): Settings of the intervals.

    Returns:
        `dict[str, Any]`: The means `first` and `second`; `difference`, second minus first; `relative`, the difference
        divided by the first mean, NaN if that is 0; each with an `_interval`, without those of resamples that divide
        by 0; `n` and `groups`. The intervals are `[nan, nan]` with a single group, of which nothing is known.

    Raises:
        ValueError: There is no sample, or the lengths differ.

    Example:

    ```python
    >>> result = paired_means([1, 1, 0, 1], [0, 1, 0, 0], is_share=True)
    >>> result["first"], result["second"], result["difference"], round(result["relative"], 3)
    (0.75, 0.25, -0.5, -0.667)

    ```
    """
    bootstrap = bootstrap or Bootstrap()
    groups = range(len(first)) if groups is None else groups
    if not len(first) == len(second) == len(groups):
        raise ValueError(
            f"`first`, `second` and `groups` must have one length, got {len(first)}, {len(second)} and {len(groups)}"
        )
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    # The difference has a column of its own, so that rounding makes none where there is none.
    differences = np.subtract(second, first)
    sums = np.zeros((len(numbers), 4))
    values = np.column_stack([first, second, differences, np.ones(len(first))])
    np.add.at(sums, [numbers[group] for group in groups], values)
    totals = dict.fromkeys(("first", "second"), len(numbers)) if is_share else {}
    result = score_with_intervals(sums, _scores, bootstrap, totals)
    if is_share:
        _widen_difference(result, len(numbers), bootstrap)
    if len(numbers) == 1:
        result |= {name: [np.nan, np.nan] for name in result if name.endswith("_interval")}
    return {**result, "n": len(first), "groups": len(numbers)}


def _scores(sums: np.ndarray) -> dict[str, np.ndarray]:
    first, second, difference = (sums[:, :3] / sums[:, 3:]).T
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.where(first == 0, np.nan, difference / first)
    return {"first": first, "second": second, "difference": difference, "relative": relative}


def _widen_difference(result: dict[str, Any], groups: int, bootstrap: Bootstrap) -> None:
    """
    Widen the interval of a difference that is the same in all resamples, because no pair differs, or all do alike: as
    many pairs that were not seen could differ as Wilson's interval says.
    """
    value, interval = result["difference"], result.get("difference_interval")
    if interval != [value, value] or value not in (-1, 0, 1):
        return
    beyond = honest_at_the_ends(0.0, [0.0, 0.0], groups, bootstrap)[1]
    result["difference_interval"] = [max(-1.0, value - beyond), min(1.0, value + beyond)]
