"""What the metrics of explanations ask of their texts."""

from __future__ import annotations

from collections.abc import Sequence


def check_texts(predictions: Sequence[str | None], references: Sequence[str]) -> None:
    """
    Refuse texts that cannot be scored.

    Args:
        predictions (`Sequence[str | None]` of length `samples`): What the model wrote; anything goes.
        references (`Sequence[str]` of length `samples`): What it should have written.

    Raises:
        ValueError: lengths that differ, or a blank reference.
    """
    if len(predictions) != len(references):
        raise ValueError(f"`predictions` must be as many as `references`, {len(references)}, got {len(predictions)}")
    for index, reference in enumerate(references):
        if not (reference or "").strip():
            raise ValueError(f"`references` must be texts that are not blank, got {reference!r} at {index}")
