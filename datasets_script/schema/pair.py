"""The records that leave the engine: an injected artifact, a pair of images, and what was rejected."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from diffusers_artifact.mapping import ArtifactType, PatchMapping


@dataclass(frozen=True, eq=False)
class Artifact:
    """
    One flaw in one image.

    Attributes:
        type (`str`): `"duplication"`, `"omission"`, `"distortion"` or `"fusion"`.
        tool (`str`): `"add"`, `"remove"`, `"distort"` or `"fuse"`.
        entity (`str`): Name of the entity it sits on.
        part (`str`): Name of the part; empty for a fusion, which concerns whole entities.
        fused_entity (`str`): Name of the second entity of a fusion, else empty.
        mapping (`PatchMapping`): Target and reference patches.
        mask (`np.ndarray` of shape `(height, width)`, `bool`): Its pixels in the flawed image.
        bbox (`tuple[float, float, float, float]`): `(x_min, y_min, x_max, y_max)` of `mask`, exclusive maxima, pixels.
        label (`str`): A few words, e.g. `"duplicated ear"`.
        explanation (`str`): One sentence on what is wrong and where.
        scores (`dict[str, float]`): What curation found; see `datasets_script.agents.curation.verdicts.Verdict`.
        parameters (`dict`): Settings of the tool, JSON-serialisable.
    """

    type: ArtifactType
    tool: str
    entity: str
    part: str
    fused_entity: str
    mapping: PatchMapping
    mask: np.ndarray
    bbox: tuple[float, float, float, float]
    label: str = ""
    explanation: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Pair:
    """
    A clean and a flawed image of one source, with all that is known of them (spec §6). The three images are RGB and of
    one size: `source` is the photograph as the model saw it, `clean` its reconstruction, `flawed` the same with
    artifacts. `caption` is the model's prompt, `clean_description` what the clean image shows, `explanation` what is
    wrong with the flawed one.
    """

    pair_id: str
    source_id: str
    source: Image.Image
    clean: Image.Image
    flawed: Image.Image
    caption: str
    clean_description: str
    explanation: str
    explanation_source: str
    grid: tuple[int, int]
    seed: int
    solver: str
    num_inference_steps: int
    model: str
    model_revision: str
    transform: dict[str, Any]
    artifacts: tuple[Artifact, ...]


@dataclass(frozen=True)
class Rejection:
    """
    Something that did not become part of the data set, and why.

    Attributes:
        source_id (`str`): The photograph.
        stage (`str`): What rejected it: `"read"`, `"perceive"`, `"plan"`, `"inject"`, `"curation"` or `"explain"`.
        reason (`str`): In words, with the measured value and the threshold where there are such.
        pair_id (`str`): The pair, where it is one artifact that was rejected; empty otherwise.
        type, tool, kernel, entity, part (`str`): Of the artifact; empty otherwise.
        scores (`dict[str, float]`): What curation measured of the artifact.
        raw (`str`): What a vision-language model answered, where that was the reason.
        traceback (`str`): Where an unexpected error came from.
    """

    source_id: str
    stage: str
    reason: str
    pair_id: str = ""
    type: str = ""
    tool: str = ""
    kernel: str = ""
    entity: str = ""
    part: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    raw: str = ""
    traceback: str = ""
