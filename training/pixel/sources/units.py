"""Rows of labelled images: a unit is what is trained on together, both halves of a pair or a single image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
from datasets import Features, List, Value

from datasets_script.utils.stored_images import stored_png


HUMAN, PSEUDO, CORRUPTION, PAIRS, CLEAN = PROVENANCES = ("human", "pseudo", "corruption", "pairs", "clean")
"""Where a label comes from: people, a detector, a corruption, an injected artifact, or an image without artifacts."""

UNIT_FEATURES = Features(
    {
        "id": Value("string"),
        "photo": Value("string"),
        "category": Value("string"),
        "images": List(datasets.Image(mode="RGB")),
        # Grey levels, 255 for an artifact; empty for an image without artifacts.
        "labels": List(datasets.Image(mode="L")),
        "provenance": List(Value("string")),
        "skipped": Value("string"),
    }
)


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """
    An image and the label of its pixels.

    Attributes:
        image (`dict`): The image as `datasets.Image` stores it.
        label (`np.ndarray` of shape `(height, width)`, *optional*): `bool`, or floats in [0, 1]; `None` for an image
            without artifacts.
        provenance (`str`): Where the label comes from, one of [`PROVENANCES`].
    """

    image: dict[str, Any]
    label: np.ndarray | None
    provenance: str


def unit_row(name: str, photo: str, images: Sequence[LabelledImage], category: str = "") -> dict[str, Any]:
    """
    Return a row of `UNIT_FEATURES`.

    Args:
        name (`str`): Id of the unit, unique in its source.
        photo (`str`): What the images show. Units of one photo are held out together.
        images (`Sequence[LabelledImage]`): One image, or both halves of a pair.
        category (`str`, *optional*, defaults to `""`): What statistics of hard cases are kept by.
    """
    return {
        "id": name,
        "photo": photo,
        "category": category,
        "images": [image.image for image in images],
        "labels": [None if image.label is None else _stored(image.label) for image in images],
        "provenance": [image.provenance for image in images],
        "skipped": "",
    }


def skipped_row(name: str, reason: str) -> dict[str, Any]:
    """Return a row that stands for an image without a label that can be trained on, and says why."""
    return {**unit_row(name, name, ()), "skipped": reason}


def _stored(label: np.ndarray) -> dict[str, Any]:
    return stored_png(np.round(label.astype(np.float32) * 255).astype(np.uint8))
