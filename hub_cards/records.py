"""Evaluations of a model, read from the reports of `artiagent evaluate`."""

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
    Score of an evaluation.

    Attributes:
        key (`str`): Section and name, e.g. `"localization.miou"`.
        name (`str`): Name for readers, e.g. `"mIoU"`.
        value (`float`): Value of the score.
        interval (`tuple[float, float]`, *optional*): Bootstrap interval.
        protocol (`str`): Protocol that defines the score.
        n (`int`): Number of samples that count in the score.
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
    Content of a report of `artiagent evaluate`.

    Attributes:
        benchmark (`str`): Name of the benchmark or of its folder.
        split (`str`, *optional*): Split of the benchmark.
        limit (`int`, *optional*): Number of images, if only the first ones were evaluated.
        n (`int`): Number of images.
        scores (`tuple[Score, ...]`): Scores that are defined, i.e. not NaN.
        confidence (`float`): Confidence of the intervals, in (0, 1).
        failures (`int`): Number of unusable answers.
        versions (`dict[str, str]`): Package versions.
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
        Read a report.

        Raises:
            UserError: The file is not a report of `artiagent evaluate`.
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
            raise UserError(
                f"'{path}' must be a report of `artiagent evaluate`, got a file without {error}"
            ) from error


def read_evaluations(folder: Path) -> tuple[EvaluationReport, ...]:
    """Read the reports in the folder of a model, sorted by name."""
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
