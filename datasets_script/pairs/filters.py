"""Choice of pairs by the types, parts and scores of their artifacts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusers_artifact.mapping import ARTIFACT_TYPES

from ..utils.errors import check_choice


@dataclass(frozen=True)
class PairFilter:
    """
    Filter that keeps the pairs all of whose artifacts fit. A pair with another artifact besides is left out as a
    whole, because its image shows that one too.

    Args:
        types (`tuple[str, ...]`, *optional*): Artifact types to keep; empty for all.
        parts (`tuple[str, ...]`, *optional*): Names of parts to keep, such as `"left ear"`; empty for all.
        min_scores (`tuple[tuple[str, float], ...]`, *optional*): Names of scores and their least values. An artifact
            without that score passes: only distortions have a perceptual distance.

    Raises:
        ArgumentError: A type is unknown.
    """

    types: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    min_scores: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        for kind in self.types:
            check_choice("types", kind, ARTIFACT_TYPES)

    def __call__(self, row: Mapping[str, Any]) -> bool:
        """Tell whether to keep a row of `PAIR_FEATURES`."""
        return all(self._fits(artifact) for artifact in row["artifacts"])

    def _fits(self, artifact: Mapping[str, Any]) -> bool:
        if self.types and artifact["type"] not in self.types:
            return False
        if self.parts and artifact["part"] not in self.parts:
            return False
        scores = json.loads(artifact["scores"]) if self.min_scores else {}
        return all(scores.get(name, least) >= least for name, least in self.min_scores)


EVERY_PAIR = PairFilter()
