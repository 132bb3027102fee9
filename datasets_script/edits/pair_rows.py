"""Edits applied to pairs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from diffusers_artifact.artifact_types import RECORDS
from diffusers_artifact.mapping import ArtifactType

from ..agents.curation import explanations
from ..schema.features import row_to_artifact
from ..schema.pair import Artifact
from ..schema.perception import UNNAMED
from ..utils.run_lengths import decode_mask
from ..utils.stored_images import stored_mask, stored_pixels, stored_size
from .records import REJECTED, SampleEdits, Values


PairEdits = Mapping[str, SampleEdits]
"""What edits add up to, by the id of the pair."""

MEASURED_IN_MASK = (
    "visible_contrast",
    "lpips",
    "stlpips",
    "detector_inside",
    "detector_clean",
    "detector_has_artifact",
)
"""Scores that curation took within the mask or its box, and that an edit of either takes away."""

# What something without a second entity is fused with, in words that are true wherever it is.
_SURROUNDINGS = "surroundings"
# What a whole entity is a part of, for types whose words are about a part.
_IMAGE = "image"


def edited_pair(row: Mapping[str, Any], edits: SampleEdits) -> dict[str, Any] | None:
    """
    Apply edits to a pair. An artifact of another type gets the words of that type, one with another mask its box and,
    where texts are templates, its place; scores that were measured within the old mask are left out. What the engine
    did stays: tool, patches and part mask.

    Args:
        row (`Mapping`): A row of `PAIR_FEATURES` as stored.
        edits (`SampleEdits`): What the edits of this pair add up to.

    Returns:
        `dict`, *optional*: A row of the same columns; `None` if the pair was rejected, or no artifact is left.
    """
    if edits.verdict == REJECTED:
        return None
    size, by_template = stored_size(row["flawed"]), row["explanation_source"] == explanations.EXPLANATION_SOURCE
    artifacts, other_words = [], False
    for number, artifact in enumerate(row["artifacts"]):
        values = edits.regions.get(number, Values())
        if values.present is False:
            other_words = True
            continue
        edited = _reshaped(_retyped(artifact, values), values)
        other_type = edited["type"] != artifact["type"]
        if other_type or (by_template and edited["mask"] != artifact["mask"]):
            edited |= _texts(edited, row["grid"], size)
        other_words |= other_type
        artifacts.append(edited)
    if artifacts == row["artifacts"] or not artifacts:
        return dict(row) if artifacts else None
    edited_row = {**row, "artifacts": artifacts}
    if other_words:
        edited_row["explanation"] = explanations.global_explanation([_named(one, row["grid"]) for one in artifacts])
        if not by_template:
            edited_row["explanation_source"] = f"{row['explanation_source']}, {explanations.EXPLANATION_SOURCE}"
    return edited_row


def with_edits(rows: Iterable[dict[str, Any]], edits: PairEdits) -> Iterator[dict[str, Any]]:
    """Yield rows of `PAIR_FEATURES` as stored with edits applied; those that were rejected are left out."""
    for row in rows:
        one = edits.get(row["pair_id"])
        edited = row if one is None else edited_pair(row, one)
        if edited is not None:
            yield edited


def _retyped(artifact: Mapping[str, Any], values: Values) -> dict[str, Any]:
    kind = cast(ArtifactType, artifact["type"] if values.type is None else values.type)
    if kind == artifact["type"]:
        return dict(artifact)
    of_two = RECORDS[kind].of_two_entities
    return {**artifact, "type": kind, "fused_entity": (artifact["fused_entity"] or _SURROUNDINGS) if of_two else ""}


def _reshaped(artifact: dict[str, Any], values: Values) -> dict[str, Any]:
    if not values.mask or values.box is None:
        return artifact
    mask = decode_mask(values.mask)
    if np.array_equal(mask, stored_pixels(artifact["mask"]) > 127):
        return artifact
    scores = {name: value for name, value in json.loads(artifact["scores"]).items() if name not in MEASURED_IN_MASK}
    written = json.dumps(scores, ensure_ascii=False, sort_keys=True)
    return {**artifact, "mask": stored_mask(mask), "bbox": list(values.box), "scores": written}


def _texts(artifact: Mapping[str, Any], grid: Sequence[int], size: tuple[int, int]) -> dict[str, str]:
    named = _named(artifact, grid)
    return {"label": explanations.label(named), "explanation": explanations.local_explanation(named, size)}


def _named(row: Mapping[str, Any], grid: Sequence[int]) -> Artifact:
    """Return an artifact with names that the words of its type can be filled with."""
    masks = {name: stored_pixels(row[name]) for name in ("mask", "part_mask")}
    artifact = row_to_artifact({**row, **masks}, (grid[0], grid[1]))
    if artifact.part or RECORDS[artifact.type].of_two_entities or "{thing}" in RECORDS[artifact.type].label:
        return artifact
    thing = artifact.entity or UNNAMED
    return replace(artifact, entity=_IMAGE, part=thing)
