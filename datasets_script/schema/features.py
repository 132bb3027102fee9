"""The columns of a data set of pairs, and the way there and back."""

from __future__ import annotations

import json
from typing import Any

import datasets
import numpy as np
from datasets import Features, List, Value

from diffusers_artifact.mapping import PatchMapping

from ..utils.stored_images import stored_mask, stored_png
from .pair import Artifact, Pair


# `type` is a string rather than a class label: rows from several data sets can be mixed, filters and SQL read as they
# mean, and a nested class label shows up as a bare number. `scores`, `parameters` and `transform` are JSON in strings:
# their keys differ from row to row, and the `Json` feature decodes with a parser that changes the last digits of
# floats (and needs datasets 4.7).
PAIR_FEATURES = Features(
    {
        "pair_id": Value("string"),
        "source_id": Value("string"),
        "source": datasets.Image(mode="RGB"),
        "clean": datasets.Image(mode="RGB"),
        "flawed": datasets.Image(mode="RGB"),
        "caption": Value("string"),
        "clean_description": Value("string"),
        "explanation": Value("string"),
        "explanation_source": Value("string"),
        "grid": List(Value("int32"), length=2),
        "seed": Value("int64"),
        "solver": Value("string"),
        "num_inference_steps": Value("int32"),
        "model": Value("string"),
        "model_revision": Value("string"),
        "transform": Value("string"),
        "artifacts": List(
            {
                "type": Value("string"),
                "tool": Value("string"),
                "entity": Value("string"),
                "part": Value("string"),
                "fused_entity": Value("string"),
                "bbox": List(Value("float64"), length=4),
                "mask": datasets.Image(mode="L"),
                "target_patches": List(Value("int32")),
                "reference_patches": List(Value("int32")),
                "label": Value("string"),
                "explanation": Value("string"),
                "scores": Value("string"),
                "parameters": Value("string"),
            }
        ),
    }
)

_PLAIN_COLUMNS = (
    "pair_id",
    "source_id",
    "caption",
    "clean_description",
    "explanation",
    "explanation_source",
    "seed",
    "solver",
    "num_inference_steps",
    "model",
    "model_revision",
)
_PLAIN_ARTIFACT_COLUMNS = ("type", "tool", "entity", "part", "fused_entity", "label", "explanation")


def pair_to_row(pair: Pair) -> dict[str, Any]:
    """
    A row of `PAIR_FEATURES`. Images become PNG without metadata, so that pixels are kept and equal pairs give equal
    bytes.

    Args:
        pair (`Pair`): The pair.

    Returns:
        `dict`: Fit for [`datasets.arrow_writer.ParquetWriter.write`].
    """
    return {
        **{name: getattr(pair, name) for name in _PLAIN_COLUMNS},
        "source": stored_png(np.asarray(pair.source)),
        "clean": stored_png(np.asarray(pair.clean)),
        "flawed": stored_png(np.asarray(pair.flawed)),
        "grid": list(pair.grid),
        "transform": _to_json(pair.transform),
        "artifacts": [_artifact_to_row(artifact) for artifact in pair.artifacts],
    }


def row_to_pair(row: dict[str, Any]) -> Pair:
    """
    The pair of a row read by `load_dataset`, streaming or not; the inverse of [`pair_to_row`].

    Args:
        row (`dict`): A row with `PAIR_FEATURES`, its images decoded.
    """
    grid = (row["grid"][0], row["grid"][1])
    return Pair(
        **{name: row[name] for name in _PLAIN_COLUMNS},
        source=row["source"].convert("RGB"),
        clean=row["clean"].convert("RGB"),
        flawed=row["flawed"].convert("RGB"),
        grid=grid,
        transform=json.loads(row["transform"]),
        artifacts=tuple(row_to_artifact(artifact, grid) for artifact in row["artifacts"]),
    )


def _artifact_to_row(artifact: Artifact) -> dict[str, Any]:
    return {
        **{name: getattr(artifact, name) for name in _PLAIN_ARTIFACT_COLUMNS},
        "bbox": list(artifact.bbox),
        "mask": stored_mask(artifact.mask),
        "target_patches": list(artifact.mapping.targets),
        "reference_patches": list(artifact.mapping.references),
        "scores": _to_json(artifact.scores),
        "parameters": _to_json(artifact.parameters),
    }


def row_to_artifact(row: dict[str, Any], grid: tuple[int, int]) -> Artifact:
    """
    An artifact of a row.

    Args:
        row (`dict`): One of a row's `artifacts`, its mask decoded.
        grid (`tuple[int, int]`): The row's.
    """
    x_min, y_min, x_max, y_max = row["bbox"]
    targets, references = tuple(row["target_patches"]), tuple(row["reference_patches"])
    return Artifact(
        **{name: row[name] for name in _PLAIN_ARTIFACT_COLUMNS},
        mapping=PatchMapping(targets, references, grid, (row["type"],) * len(targets)),
        mask=np.asarray(row["mask"]) > 127,
        bbox=(x_min, y_min, x_max, y_max),
        scores=json.loads(row["scores"]),
        parameters=json.loads(row["parameters"]),
    )


def _to_json(content: dict[str, Any]) -> str:
    # JSON has no NaN and no infinity; other readers than Python's refuse them.
    return json.dumps(content, ensure_ascii=False, allow_nan=False, sort_keys=True)
