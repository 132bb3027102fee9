"""Check that the arguments of a metric have one entry for each sample."""

from __future__ import annotations

from collections.abc import Sized


def check_lengths(references: object, **others: object) -> None:
    """
    Raise an error if arguments differ in length.

    Args:
        references (`object`): Argument that sets the length. Iterators, which have no length, are not checked.
        others (`object`): Further arguments by name; those without a length, such as iterators and `None`, are
            skipped.

    Raises:
        ValueError: An argument is longer or shorter than `references`; the message names it.
    """
    for name, values in others.items():
        if isinstance(values, Sized) and isinstance(references, Sized) and len(values) != len(references):
            raise ValueError(f"`{name}` must have the length of `references`, {len(references)}, got {len(values)}")
