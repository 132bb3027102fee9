"""Ids of pairs and of their images: composing and parsing them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PairId:
    """
    Id of a pair, written `"<source_id>:<variant>"`.

    Args:
        source_id (`str`): File name of the source photo, relative to the source folder; it may contain a colon.
        variant (`int`): Number of the pair among those of the photo, from 0.
    """

    source_id: str
    variant: int

    def __str__(self) -> str:
        return f"{self.source_id}:{self.variant}"

    @classmethod
    def parse(cls, text: str) -> PairId:
        """
        Parse an id from its written form.

        Raises:
            ValueError: `text` does not end in a colon and a number.
        """
        source_id, colon, variant = text.rpartition(":")
        if not colon or not variant.isdecimal():
            raise ValueError(f"`text` must be '<source_id>:<variant>', got '{text}'")
        return cls(source_id, int(variant))


def image_id(pair_id: str, name: str) -> str:
    """Compose the id of something derived from a pair: `"<pair_id>#<name>"`, e.g. of its image `"clean"`."""
    return f"{pair_id}#{name}"


def pair_id_of(image_id: str) -> str:
    """Return the pair id within an id composed by [`image_id`]."""
    return image_id.rpartition("#")[0]
