"""The columns of a dataset that a report is made of; its images stay unread."""

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

# What differs from case to case in a reason: measured values and names.
_PARTICULARS = re.compile(r"'[^']*'|\d+(?:\.\d+)?(?:e-?\d+)?")


@dataclass(frozen=True)
class ArtifactFacts:
    """
    What a report takes of one artifact.

    Attributes:
        type, tool, kernel, entity, part (`str`): As in [`Artifact`]; `kernel` is empty for tools without one.
        box (`tuple[float, float, float, float]`): `(x_min, y_min, x_max, y_max)` in shares of the image's sides.
        words (`int`): In its explanation.
        change_inside, change_outside (`float`): As curation measured them, in [0, 1]; `None` where it did not.
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

    @property
    def share(self) -> float:
        """Of the image, that the box covers."""
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


@dataclass(frozen=True)
class PairFacts:
    """What a report takes of one pair. `words` are those of its explanation, `place` is its file and row."""

    pair_id: str
    source_id: str
    explanation_source: str
    words: int
    artifacts: tuple[ArtifactFacts, ...]
    place: tuple[str, int]


def count_pairs(out: Path) -> int:
    """From the files' footers alone."""
    return sum(_open(path).metadata.num_rows for path in _files(out))


def read_facts(out: Path) -> Iterator[PairFacts]:
    """
    The pairs of a dataset in order, without their images.

    Args:
        out (`Path`): Folder written by `artiagent synthesize`.

    Raises:
        UserError: a file that is no whole Parquet file.
    """
    for path in _files(out):
        row_number = 0
        for batch in _open(path).iter_batches(_ROWS_AT_ONCE, columns=list(_COLUMNS)):
            for row in batch.to_pylist():
                yield _pair_of(row, (path.name, row_number))
                row_number += 1


def read_rejections(out: Path) -> Counter[str]:
    """What was rejected, as `"stage: reason"` without the particulars of each case."""
    reasons: Counter[str] = Counter()
    path = out / "rejected.jsonl"
    if not path.is_file():
        raise UserError(f"'{out}' has lost its rejected.jsonl; the command that made the dataset writes it again")
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
        raise UserError(f"'{path}' is no whole Parquet file: {error}") from error


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
    )
