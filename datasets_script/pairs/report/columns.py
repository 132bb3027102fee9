"""Reading of the columns that a report needs, without the images."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from diffusers_artifact.mapping import ArtifactType

from ...schema.boxes import Box
from ...schema.features import current_artifact
from ...schema.pair import ArtifactScores
from ...utils.errors import UserError


_COLUMNS = (
    "pair_id",
    "source_id",
    "explanation",
    "explanation_source",
    "transform",
    *(
        f"artifacts.list.element.{name}"
        for name in ("type", "tool", "kernel", "entity", "part", "bbox", "explanation", "scores", "parameters")
    ),
)
_ROWS_AT_ONCE = 256

# Parts of a reason that differ from case to case: measured values and names.
_PARTICULARS = re.compile(r"'[^']*'|\d+(?:\.\d+)?(?:e-?\d+)?")


@dataclass(frozen=True)
class ArtifactFacts:
    """
    Facts about an artifact that a report counts.

    Attributes:
        type, tool, kernel, entity, part (`str`): As in [`Artifact`]; `kernel` is empty for tools without one.
        box (`tuple[float, float, float, float]`): `(x_min, y_min, x_max, y_max)` as shares of the image's sides.
        words (`int`): Number of words in its explanation.
        change_inside (`float`): Mean absolute change inside the artifact, in [0, 1]; `None` if not measured.
        change_outside (`float`): Mean absolute change outside all artifacts, in [0, 1]; `None` if not measured.
        is_detected (`bool`, *optional*): Whether a pixel detector saw it, as a second opinion; `None` if none was
            asked.
    """

    type: ArtifactType
    tool: str
    kernel: str
    entity: str
    part: str
    box: Box
    words: int
    change_inside: float | None
    change_outside: float | None
    is_detected: bool | None = None

    @property
    def share(self) -> float:
        """Share of the image that the box covers, in [0, 1]."""
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


@dataclass(frozen=True)
class PairFacts:
    """Facts about a pair that a report counts; `words` of its explanation, `place` is its file name and row number."""

    pair_id: str
    source_id: str
    explanation_source: str
    words: int
    artifacts: tuple[ArtifactFacts, ...]
    place: tuple[str, int]


def count_pairs(out: Path) -> int:
    """Count the pairs of a dataset from the footers of its files."""
    return sum(_open(path).metadata.num_rows for path in _files(out))


def read_facts(out: Path) -> Iterator[PairFacts]:
    """
    Read the facts about the pairs of a dataset in order, without their images.

    Args:
        out (`Path`): Folder written by `artiagent synthesize`.

    Raises:
        UserError: a Parquet file is damaged.
    """
    for path in _files(out):
        row_number = 0
        for batch in _open(path).iter_batches(_ROWS_AT_ONCE, columns=list(_COLUMNS)):
            for row in batch.to_pylist():
                yield _pair_of(row, (path.name, row_number))
                row_number += 1


def read_rejections(out: Path) -> Counter[str]:
    """Count rejections by `"stage: reason"`, without values and names that differ from case to case."""
    reasons: Counter[str] = Counter()
    path = out / "rejected.jsonl"
    if not path.is_file():
        raise UserError(
            f"`out` must hold rejected.jsonl, got '{out}' without it; run the command that made the dataset to write "
            "it again"
        )
    with path.open(encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            reasons[f"{record['stage']}: {_PARTICULARS.sub('…', record['reason'])[:160]}"] += 1
    return reasons


def _files(out: Path) -> list[Path]:
    return sorted((out / "data").glob("*.parquet"))


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise UserError(f"'{path}' is not a complete Parquet file: {error}") from error


def _pair_of(row: dict[str, Any], place: tuple[str, int]) -> PairFacts:
    width, height = json.loads(row["transform"])["output_size"]
    return PairFacts(
        row["pair_id"],
        row["source_id"],
        row["explanation_source"],
        len(row["explanation"].split()),
        tuple(_facts_of(artifact, width, height) for artifact in row["artifacts"]),
        place,
    )


def _facts_of(artifact: dict[str, Any], width: int, height: int) -> ArtifactFacts:
    artifact = current_artifact(artifact)
    x_min, y_min, x_max, y_max = artifact["bbox"]
    scores: ArtifactScores = json.loads(artifact["scores"])
    detected = scores.get("detector_has_artifact")
    return ArtifactFacts(
        artifact["type"],
        artifact["tool"],
        artifact["kernel"],
        artifact["entity"],
        artifact["part"],
        (x_min / width, y_min / height, x_max / width, y_max / height),
        len(artifact["explanation"].split()),
        scores.get("change_inside"),
        scores.get("change_outside"),
        None if detected is None else bool(detected),
    )
