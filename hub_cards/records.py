"""What is on record of a model: what `artiagent evaluate` found."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets_script.evaluation.tables import SCORE_NAMES
from datasets_script.utils.errors import UserError
from datasets_script.utils.hub_ids import last_name

from .checks import read_json


EVALUATION_FOLDER = "evaluation"


@dataclass(frozen=True)
class Score:
    """
    One number of an evaluation.

    Attributes:
        key (`str`): Section and name, e.g. `"localization.miou"`.
        name (`str`): In words.
        value (`float`): The number.
        interval (`tuple[float, float]`, *optional*): Its bootstrap interval.
        protocol (`str`): What the number means.
        n (`int`): Samples that count in it.
    """

    key: str
    name: str
    value: float
    interval: tuple[float, float] | None
    protocol: str
    n: int

    @property
    def interval_text(self) -> str:
        return "" if self.interval is None else f"{self.interval[0]:.3f} to {self.interval[1]:.3f}"


@dataclass(frozen=True)
class EvaluationReport:
    """
    What a `report.json` of `artiagent evaluate` says.

    Attributes:
        benchmark (`str`): Its name, or that of its folder.
        split (`str`, *optional*): Of it.
        limit (`int`, *optional*): Where only the first images were looked at.
        n (`int`): Images.
        scores (`tuple[Score, ...]`): The numbers that are defined.
        confidence (`float`): Of the intervals.
        failures (`int`): Answers that could not be used.
        versions (`dict[str, str]`): Of packages.
    """

    benchmark: str
    split: str | None
    limit: int | None
    n: int
    scores: tuple[Score, ...]
    confidence: float
    failures: int
    versions: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> EvaluationReport:
        """
        Raises:
            UserError: the file is none of `artiagent evaluate`.
        """
        report = read_json(path)
        try:
            return cls(
                benchmark=last_name(report["benchmark"]),
                split=report["split"],
                limit=report["limit"],
                n=report["n"],
                scores=tuple(_scores(report["scores"])),
                confidence=report["settings"]["bootstrap"]["confidence"],
                failures=len(report["failures"]),
                versions=report["versions"],
            )
        except (KeyError, TypeError) as error:
            raise UserError(f"'{path}' must be a report.json of `artiagent evaluate`, lacks {error}") from error


def read_evaluations(folder: Path) -> tuple[EvaluationReport, ...]:
    """The reports beside a model, in order of their names."""
    return tuple(EvaluationReport.read(path) for path in sorted((folder / EVALUATION_FOLDER).glob("*.json")))


def _scores(sections: Mapping[str, Mapping[str, Any]]) -> Iterator[Score]:
    for key, name in SCORE_NAMES.items():
        section, _, score = key.partition(".")
        values = sections.get(section, {})
        value = values.get(score)
        if value is None or math.isnan(value):
            continue
        low, high = values.get(f"{score}_interval", (None, None))
        yield Score(
            key=key,
            name=name,
            value=value,
            interval=None if low is None else (low, high),
            protocol=values.get("protocol", ""),
            n=values.get("n_scored", values["n"]),
        )
