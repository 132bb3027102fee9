"""Published scores on the benchmarks, read from `published.json`, which names their sources."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class PublishedTable:
    """
    Table of scores from a paper.

    Attributes:
        benchmark (`str`): Name of the benchmark.
        title (`str`): Heading of the first column.
        source (`str`): Paper that published it.
        protocol (`str`): Protocol of its mIoU or accuracy.
        columns (`Mapping[str, str]`): The paper's headings, by the matching score here, `"section.score"`.
        rows (`Mapping[str, Sequence[float | None]]`): Values in [0, 1] by model, `None` where not reported.
        note (`str`): Other differences between its numbers and those computed here.
    """

    benchmark: str
    title: str
    source: str
    protocol: str
    columns: Mapping[str, str]
    rows: Mapping[str, Sequence[float | None]]
    note: str = ""


@cache
def published_tables() -> dict[str, PublishedTable]:
    """Load the published tables, by benchmark."""
    entries = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
    return {entry["benchmark"]: PublishedTable(**entry) for entry in entries}
