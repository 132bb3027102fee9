"""Check the texts given to the metrics of explanations."""

from __future__ import annotations

from collections.abc import Sequence

from .lengths import check_lengths


def check_texts(predictions: Sequence[str | None], references: Sequence[str]) -> None:
    """
    Raise an error if texts cannot be scored.

    Args:
        predictions (`Sequence[str | None]` of length `samples`): Texts written by the model. Only their number is
            checked.
        references (`Sequence[str]` of length `samples`): Expected texts, not blank.

    Raises:
        ValueError: Lengths differ, or a reference is blank.
    """
    check_lengths(references, predictions=predictions)
    for index, reference in enumerate(references):
        if not (reference or "").strip():
            raise ValueError(f"`references` must be texts that are not blank, got {reference!r} at {index}")
