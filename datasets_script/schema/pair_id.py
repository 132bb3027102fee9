"""The ids of pairs and of their images: how they are composed, and taken apart again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PairId:
    """
    The id of a pair, written `"<source_id>:<variant>"`.

    Args:
        source_id (`str`): File name of the source photo, relative to the source folder; it may hold a colon itself.
        variant (`int`): Which of the photo's pairs it is, from 0.
    """

    source_id: str
    variant: int

    def __str__(self) -> str:
        return f"{self.source_id}:{self.variant}"

    @classmethod
    def parse(cls, text: str) -> PairId:
        """
        Read an id from its written form.

        Raises:
            ValueError: `text` does not end in a colon and a number.
        """
        source_id, colon, variant = text.rpartition(":")
        if not colon or not variant.isdecimal():
            raise ValueError(f"`text` must be '<source_id>:<variant>', got '{text}'")
        return cls(source_id, int(variant))


def image_id(pair_id: str, name: str) -> str:
    """Compose the id of what is made of a pair: `"<pair_id>#<name>"`, e.g. of its half `"clean"`."""
    return f"{pair_id}#{name}"


def pair_id_of(image_id: str) -> str:
    """Return the pair's part of what [`image_id`] composed."""
    return image_id.rpartition("#")[0]
