"""What is on record of a model: how it was trained, and what `artiagent evaluate` found."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from datasets_script.evaluation.tables import SCORE_NAMES
from datasets_script.utils.errors import UserError


TRAINING_FILE = "training.json"
EVALUATION_FOLDER = "evaluation"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TRAINING_KEYS = (
    *("script", "recipe", "base_model", "method", "data", "seed", "versions", "device", "devices", "seconds"),
    *("resumed_from_step", "steps", "loss", "eval_loss"),
)


@dataclass(frozen=True)
class BaseModel:
    """
    A model that another was trained from.

    Attributes:
        id (`str`): On the Hub, or the name of its folder.
        revision (`str`, *optional*): Its commit, or the fingerprint of its folder.
        base (`BaseModel`, *optional*): What it was trained from itself, where that is on record.
    """

    id: str
    revision: str | None
    base: BaseModel | None = None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> BaseModel:
        before = record.get("base_model")
        return cls(last_name(record["id"]), record["revision"], None if before is None else cls.of(before))

    @property
    def on_hub(self) -> BaseModel | None:
        """It, or the first of its ancestors, that is on the Hub."""
        return self if self.is_on_hub else self.base and self.base.on_hub

    @property
    def is_on_hub(self) -> bool:
        fingerprint = (self.revision or "").startswith("sha256:")
        return _HUB_ID.fullmatch(self.id) is not None and not fingerprint


@dataclass(frozen=True)
class TrainingRecord:
    """
    The content of `training.json`.

    Attributes:
        script (`str`): What trained it.
        recipe (`dict`): The arguments that were given.
        base (`BaseModel`): What was trained.
        method (`dict`): `peft`, `frozen`, `trainable_parameters`, `parameters`.
        data (`dict`): Facts of the data, as `training.vlm.data.Conversations.record` gives them.
        seed (`int`): Of the training.
        versions (`dict[str, str]`): Of packages.
        device (`str`), devices (`int`): What it ran on, and on how many of them.
        seconds (`float`): How long, since it was last continued.
        resumed_from_step (`int`, *optional*): Where that was.
        steps (`int`): How many.
        loss (`tuple[tuple[int, float], ...]`): Steps and losses.
        eval_loss (`tuple[tuple[int, float], ...]`): The same on the test split, where there was one.
    """

    script: str
    recipe: Mapping[str, Any]
    base: BaseModel
    method: Mapping[str, Any]
    data: Mapping[str, Any]
    seed: int
    versions: Mapping[str, str]
    device: str
    devices: int
    seconds: float
    resumed_from_step: int | None
    steps: int
    loss: tuple[tuple[int, float], ...]
    eval_loss: tuple[tuple[int, float], ...]

    @classmethod
    def read(cls, folder: Path) -> TrainingRecord:
        """
        Raises:
            UserError: the folder has none, or it lacks something.
        """
        path = folder / TRAINING_FILE
        if not path.is_file():
            raise UserError(
                f"PATH must be a model with its {TRAINING_FILE}, as training/sft_vlm.py leaves it, found none in "
                f"'{folder}'"
            )
        record = read_json(path)
        missing = [key for key in _TRAINING_KEYS if key not in record]
        if record.get("format") != 1 or missing:
            raise UserError(f"'{path}' must be of format 1 with {', '.join(_TRAINING_KEYS)}; lacks {missing or 'it'}")
        return cls(
            script=record["script"],
            recipe=record["recipe"],
            base=BaseModel.of(record["base_model"]),
            method=record["method"],
            data=record["data"],
            seed=record["seed"],
            versions=record["versions"],
            device=record["device"],
            devices=record["devices"],
            seconds=record["seconds"],
            resumed_from_step=record["resumed_from_step"],
            steps=record["steps"],
            loss=tuple((step, loss) for step, loss in record["loss"]),
            eval_loss=tuple((step, loss) for step, loss in record["eval_loss"]),
        )

    @property
    def is_of_pairs(self) -> bool:
        """Whether the data were pairs of clean and flawed images, and not SynArtifact's single ones."""
        return "pairs" in self.data

    @property
    def dataset_ids(self) -> tuple[str, ...]:
        """Ids on the Hub among what it was trained on; a folder's record has its name alone, without a slash."""
        source = self.data.get("source", "")
        return (source,) if _HUB_ID.fullmatch(source) else ()


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


def read_json(path: Path) -> Any:
    """
    Raises:
        UserError: it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"'{path}' must be JSON: {error}") from error


def last_name(path: str) -> str:
    """The last part of a path of any system; a name or a Hub id is its own."""
    windows = PureWindowsPath(path)
    if windows.is_absolute():
        return windows.name
    return path if _HUB_ID.fullmatch(path) else PurePosixPath(path).name or path


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
