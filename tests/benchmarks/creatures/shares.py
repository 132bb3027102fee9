"""Shares of pictures with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import TypedDict


class Share(TypedDict):
    """A share, and its 95 % interval."""

    share: float
    interval: list[float]
    number: int


def share(hits: Sequence[bool]) -> Share:
    """
    Compute a share with its 95 % Wilson interval (Wilson, 1927), which also holds near 0 and 1.

    Raises:
        ValueError: There is nothing to count.
    """
    if not len(hits):
        raise ValueError("`hits` must have at least one entry, got none")
    number, mean, z = len(hits), sum(map(bool, hits)) / len(hits), 1.959964
    middle = (mean + z * z / (2 * number)) / (1 + z * z / number)
    half = z / (1 + z * z / number) * sqrt(mean * (1 - mean) / number + z * z / (4 * number * number))
    interval = [max(0.0, middle - half), min(1.0, middle + half)]
    return {"share": round(mean, 4), "interval": [round(limit, 4) for limit in interval], "number": number}
