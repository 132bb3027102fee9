"""Columns of a dataset of pairs, and the conversion of pairs to rows and back."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping
from typing import Any

import datasets
import numpy as np
from datasets import Features, List, Value

from diffusers_artifact.mapping import PatchMapping

from ..utils.stored_arrays import read_array, stored_array
from ..utils.stored_images import stored_mask, stored_png
from .pair import UNKNOWN_INSTANCE, Artifact, Pair
from .pair_id import PairId


# `type` is a string, not a class label: rows of several datasets can be mixed, filters and SQL stay readable, and a
# nested class label would show up as a bare number. `scores`, `parameters` and `transform` are JSON in strings: their
# keys differ from row to row, and the `Json` feature (datasets 4.7) parses floats with changed last digits. Noise is
# the content of an NPY file, which says its shape and precision: its shape depends on the model, and `Array3D` fixes
# all sides but the first.
PAIR_FEATURES = Features(
    {
        "pair_id": Value("string"),
        "source_id": Value("string"),
        "variant": Value("int32"),
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
                "kernel": Value("string"),
                "entity": Value("string"),
                "part": Value("string"),
                "fused_entity": Value("string"),
                "instance_id": Value("int32"),
                "bbox": List(Value("float64"), length=4),
                "mask": datasets.Image(mode="L"),
                "part_mask": datasets.Image(mode="L"),
                "target_patches": List(Value("int32")),
                "reference_patches": List(Value("int32")),
                "label": Value("string"),
                "explanation": Value("string"),
                "scores": Value("string"),
                "parameters": Value("string"),
            }
        ),
        "clean_noise": Value("binary"),
        "flawed_noise": Value("binary"),
    }
)

NOISE_COLUMNS = ("clean_noise", "flawed_noise")
"""Columns of inverted noise, null unless the run stores it."""

# Columns that older files lack, as they lack `kernel`, `instance_id` and `part_mask` of `artifacts`. [`current_row`]
# derives them.
DERIVED_COLUMNS = ("variant", *NOISE_COLUMNS)

_PLAIN_COLUMNS = (
    "pair_id",
    "source_id",
    "variant",
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
_PLAIN_ARTIFACT_COLUMNS = (
    "type",
    "tool",
    "kernel",
    "entity",
    "part",
    "fused_entity",
    "instance_id",
    "label",
    "explanation",
)


def pair_to_row(pair: Pair) -> dict[str, Any]:
    """
    Convert a pair to a row of `PAIR_FEATURES`. Images become PNG without metadata: lossless, and equal pairs give
    equal bytes.

    Args:
        pair (`Pair`): The pair.

    Returns:
        `dict`: A row for [`datasets.arrow_writer.ParquetWriter.write`].
    """
    return {
        **{name: getattr(pair, name) for name in _PLAIN_COLUMNS},
        "source": stored_png(np.asarray(pair.source)),
        "clean": stored_png(np.asarray(pair.clean)),
        "flawed": stored_png(np.asarray(pair.flawed)),
        "grid": list(pair.grid),
        "transform": _to_json(pair.transform),
        "artifacts": [_artifact_to_row(artifact) for artifact in pair.artifacts],
        **{name: stored_array(getattr(pair, name)) for name in NOISE_COLUMNS},
    }


def row_to_pair(row: dict[str, Any]) -> Pair:
    """
    Return the pair of a row read by `load_dataset`, streaming or not; the inverse of [`pair_to_row`].

    Args:
        row (`dict`): A row with `PAIR_FEATURES`, its images decoded, in the current or the older layout (see
            [`current_row`]).
    """
    row = current_row(row)
    grid = (row["grid"][0], row["grid"][1])
    return Pair(
        **{name: row[name] for name in _PLAIN_COLUMNS},
        source=row["source"].convert("RGB"),
        clean=row["clean"].convert("RGB"),
        flawed=row["flawed"].convert("RGB"),
        grid=grid,
        transform=json.loads(row["transform"]),
        artifacts=tuple(row_to_artifact(artifact, grid) for artifact in row["artifacts"]),
        clean_noise=read_array(row["clean_noise"]),
        flawed_noise=read_array(row["flawed_noise"]),
    )


def _artifact_to_row(artifact: Artifact) -> dict[str, Any]:
    return {
        **{name: getattr(artifact, name) for name in _PLAIN_ARTIFACT_COLUMNS},
        "bbox": list(artifact.bbox),
        "mask": stored_mask(artifact.mask),
        "part_mask": stored_mask(artifact.part_mask),
        "target_patches": list(artifact.mapping.targets),
        "reference_patches": list(artifact.mapping.references),
        "scores": _to_json(artifact.scores),
        "parameters": _to_json(artifact.parameters),
    }


def row_to_artifact(row: dict[str, Any], grid: tuple[int, int]) -> Artifact:
    """
    Return an artifact of a row.

    Args:
        row (`dict`): One of a row's `artifacts`, its masks decoded, in the current or the older layout (see
            [`current_artifact`]).
        grid (`tuple[int, int]`): Rows and columns of patches: the row's `grid`.
    """
    row = current_artifact(row)
    x_min, y_min, x_max, y_max = row["bbox"]
    targets, references = tuple(row["target_patches"]), tuple(row["reference_patches"])
    return Artifact(
        **{name: row[name] for name in _PLAIN_ARTIFACT_COLUMNS},
        mapping=PatchMapping(targets, references, grid, (row["type"],) * len(targets)),
        mask=np.asarray(row["mask"]) > 127,
        part_mask=np.asarray(row["part_mask"]) > 127,
        bbox=(x_min, y_min, x_max, y_max),
        scores=json.loads(row["scores"]),
        parameters=json.loads(row["parameters"]),
    )


def current_row(row: dict[str, Any]) -> dict[str, Any]:
    """
    Bring a row into the layout of `PAIR_FEATURES`. Files written before `variant`, `kernel` and `instance_id` were
    columns hold them in `pair_id` and in the artifacts' `parameters`. Those written before `part_mask` was one hold it
    as `mask`. Those written before noise could be stored hold none.

    Args:
        row (`dict`): A row of either layout, its images decoded or not.

    Returns:
        `dict`: The row itself if it has all columns, else a copy with them.
    """
    # Absent in an older file, null if it was loaded together with newer ones.
    artifacts = [current_artifact(artifact) for artifact in row["artifacts"]]
    has_columns = row.get("variant") is not None and all(name in row for name in NOISE_COLUMNS)
    if has_columns and all(map(operator.is_, artifacts, row["artifacts"])):
        return row
    noise = {name: row.get(name) for name in NOISE_COLUMNS}
    return {**row, "variant": PairId.parse(row["pair_id"]).variant, "artifacts": artifacts, **noise}


def current_artifact(row: dict[str, Any]) -> dict[str, Any]:
    """Bring one of a row's `artifacts` into the layout of `PAIR_FEATURES`; see [`current_row`]."""
    if "mask" in row and row.get("part_mask") is None:
        row = {**row, "part_mask": row["mask"]}
    if row.get("kernel") is not None:
        return row
    parameters = json.loads(row["parameters"])
    kernel, instance_id = parameters.pop("kernel", ""), parameters.pop("instance_id", UNKNOWN_INSTANCE)
    return {**row, "kernel": kernel, "instance_id": instance_id, "parameters": _to_json(parameters)}


def _to_json(content: Mapping[str, Any]) -> str:
    # JSON has no NaN and no infinity; readers other than Python's refuse them.
    return json.dumps(content, ensure_ascii=False, allow_nan=False, sort_keys=True)
