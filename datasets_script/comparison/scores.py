"""Scores of folders and their changes, from values of single images."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from evaluate_metrics.functional.intervals import Bootstrap
from evaluate_metrics.functional.paired import paired_means

from ..utils.markdown import markdown_table
from .measures import Column, MeasuredColumn


Interval = tuple[float, float]


@dataclass(frozen=True)
class Change:
    """
    How a folder differs from the first in a column.

    Attributes:
        mean (`float`), interval (`tuple[float, float]`): Mean of the folder. Bounds are NaN if there is a single
            prompt, which tells nothing of them.
        difference, difference_interval: Its mean minus that of the first, from pairs of images.
        relative, relative_interval: The same divided by the mean of the first; NaN if that is 0.
        chosen (`bool`): Whether the folder's images were chosen or guided by this very measure, so that it does not
            judge them.
    """

    mean: float
    interval: Interval
    difference: float
    difference_interval: Interval
    relative: float
    relative_interval: Interval
    chosen: bool = False

    @property
    def is_certain(self) -> bool:
        """Return whether the interval of the difference excludes 0."""
        low, high = self.difference_interval
        return low > 0 or high < 0


@dataclass(frozen=True)
class ColumnScores:
    """
    Scores of all folders in a column.

    Attributes:
        column (`Column`): The column.
        mean (`float`), interval (`tuple[float, float]`): Mean of the first folder.
        chosen (`bool`): Whether the first folder's images were chosen or guided by this very measure.
        changes (`tuple[Change, ...]`): The other folders.
        n, groups (`int`): Number of images, or of prompts for diversity, and of groups that the bootstrap draws.
    """

    column: Column
    mean: float
    interval: Interval
    chosen: bool
    changes: tuple[Change, ...]
    n: int
    groups: int

    @property
    def is_marked(self) -> bool:
        """Return whether it does not judge some of the folders, since it chose or guided their images."""
        return self.chosen or any(change.chosen for change in self.changes)

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the scores by folder, JSON-serialisable; NaN is null."""
        others = {
            name: {
                "mean": _number(change.mean),
                "interval": _bounds(change.interval),
                "difference": _number(change.difference),
                "difference_interval": _bounds(change.difference_interval),
                "relative": _number(change.relative),
                "relative_interval": _bounds(change.relative_interval),
                "chosen_or_guided_by_it": change.chosen,
            }
            for name, change in zip(names[1:], self.changes, strict=True)
        }
        first = {
            names[0]: {
                "mean": _number(self.mean),
                "interval": _bounds(self.interval),
                "chosen_or_guided_by_it": self.chosen,
            }
        }
        about = {"better": self.column.better, "n": self.n, "groups": self.groups}
        return {"column": self.column.name, **about, "folders": {**first, **others}}


@dataclass(frozen=True)
class Comparison:
    """
    Outcome of a comparison.

    Attributes:
        names (`tuple[str, ...]`): Names of the folders; others are compared with the first.
        scores (`tuple[ColumnScores, ...]`): Scores of all columns.
        notes (`tuple[str, ...]`): Remarks for readers.
    """

    names: tuple[str, ...]
    scores: tuple[ColumnScores, ...]
    notes: tuple[str, ...]

    def table(self) -> str:
        """Write the scores as a table in Markdown."""
        return comparison_table(self.scores, self.names)

    def score(self, column: str) -> ColumnScores:
        """Return the scores of a column by its name."""
        return next(of for of in self.scores if of.column.name == column)


def score_column(of: MeasuredColumn, groups: Sequence[Hashable], bootstrap: Bootstrap | None = None) -> ColumnScores:
    """
    Score folders in a column.

    Args:
        of (`MeasuredColumn`): The column and its values.
        groups (`Sequence`): Group of each value.
        bootstrap (`Bootstrap`, *optional*): Settings of the intervals.
    """
    first, *others = of.values
    results = [paired_means(first, other, groups, of.column.is_share, bootstrap) for other in others]
    changes = tuple(
        Change(
            mean=result["second"],
            interval=_pair(result["second_interval"]),
            difference=result["difference"],
            difference_interval=_pair(result["difference_interval"]),
            relative=result["relative"],
            relative_interval=_pair(result["relative_interval"]),
            chosen=is_chosen,
        )
        for result, is_chosen in zip(results, of.chosen[1:], strict=True)
    )
    about = results[0]
    return ColumnScores(
        of.column, about["first"], _pair(about["first_interval"]), of.chosen[0], changes, about["n"], about["groups"]
    )


def comparison_table(scores: Sequence[ColumnScores], names: Sequence[str]) -> str:
    """
    Write a table in Markdown: a row for each column, and for each folder its mean and the change from the first.

    Args:
        scores (`Sequence[ColumnScores]`): The scores.
        names (`Sequence[str]`): Names of the folders.
    """
    return markdown_table(score_heading(names), [score_cells(of) for of in scores], aligned=True)


def score_heading(names: Sequence[str]) -> list[str]:
    """Return the heading of [`comparison_table`]."""
    others = [cell for name in names[1:] for cell in (name, f"change from {names[0]}", "relative")]
    return ["score", "better", names[0], *others, "n"]


def score_cells(scores: ColumnScores) -> list[str]:
    """Return the cells of a column's row; see [`comparison_table`]."""
    own = "†" if scores.chosen else ""
    cells = [scores.column.words, scores.column.better, _with_interval(scores.mean, scores.interval) + own]
    for change in scores.changes:
        mark = "†" if change.chosen or scores.chosen else ""
        cells += [
            _with_interval(change.mean, change.interval),
            _with_interval(change.difference, change.difference_interval, "+") + mark,
            _percent(change.relative, change.relative_interval) if scores.column.is_ratio else "–",
        ]
    return [*cells, str(scores.n)]


CHOSEN_NOTE = (
    "† This model chose or guided the images of that folder, or of the one it is compared with, so its score improves "
    "there by construction and does not judge them."
)


def _with_interval(value: float, interval: Interval, sign: str = "") -> str:
    bounds = "" if math.isnan(interval[0]) else f" [{interval[0]:{sign}.4g}, {interval[1]:{sign}.4g}]"
    return f"{value:{sign}.4g}{bounds}"


def _percent(value: float, interval: Interval) -> str:
    if math.isnan(value):
        return "–"
    bounds = "" if math.isnan(interval[0]) else f" [{interval[0]:+.0%}, {interval[1]:+.0%}]"
    return f"{value:+.0%}{bounds}"


def _pair(interval: Sequence[float]) -> Interval:
    low, high = interval
    return low, high


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _bounds(interval: Interval) -> list[float | None]:
    return [_number(bound) for bound in interval]
