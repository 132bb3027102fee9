"""The record of a training, `training.json`, which lies beside every model that a script of `training/` has made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..utils.errors import UserError
from ..utils.files import write_json
from ..utils.hub_ids import is_hub_id, last_name


TRAINING_FILE = "training.json"

_FORMAT = 1
_KEYS = (
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
    def from_dict(cls, content: Mapping[str, Any]) -> BaseModel:
        """Read what [`to_dict`] returns; of an id that is a path, the last name is kept."""
        before = content.get("base_model")
        return cls(last_name(content["id"]), content["revision"], None if before is None else cls.from_dict(before))

    def to_dict(self) -> dict[str, Any]:
        """Return `id`, `revision` and, where there is one, `base_model`."""
        content: dict[str, Any] = {"id": self.id, "revision": self.revision}
        if self.base is not None:
            content["base_model"] = self.base.to_dict()
        return content

    @property
    def on_hub(self) -> BaseModel | None:
        """It, or the first of its ancestors, that is on the Hub."""
        return self if self.is_on_hub else self.base and self.base.on_hub

    @property
    def is_on_hub(self) -> bool:
        """Whether it was loaded from the Hub."""
        fingerprint = (self.revision or "").startswith("sha256:")
        return is_hub_id(self.id) and not fingerprint


@dataclass(frozen=True)
class TrainingMethod:
    """
    What of a model was trained.

    Attributes:
        peft (`bool`): Whether adapters were, in place of the model's own weights.
        frozen (`tuple[str, ...]`): Parts that stayed as they were.
        trainable_parameters (`int`), parameters (`int`): How many were trained, of how many.
    """

    peft: bool
    frozen: tuple[str, ...]
    trainable_parameters: int
    parameters: int


@dataclass(frozen=True)
class TrainingRecord:
    """
    The content of `training.json`.

    Attributes:
        script (`str`): What trained the model.
        recipe (`Mapping`): The arguments that were given.
        base (`BaseModel`): What was trained.
        method (`TrainingMethod`): What of it was trained.
        data (`Mapping`): Facts of the data, as `training.vlm.data.Conversations.record` gives them.
        seed (`int`): Of the training.
        versions (`Mapping[str, str]`): Of packages.
        device (`str`), devices (`int`): What it ran on, and on how many of them.
        seconds (`float`): How long it ran since it was last continued.
        resumed_from_step (`int`, *optional*): Where it was last continued.
        steps (`int`): How many optimizer steps there were.
        loss (`tuple[tuple[int, float], ...]`): Steps and losses.
        eval_loss (`tuple[tuple[int, float], ...]`): The same on the test split, where there was one.
    """

    script: str
    recipe: Mapping[str, Any]
    base: BaseModel
    method: TrainingMethod
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
        Read the record of a model.

        Args:
            folder (`Path`): The model's.

        Raises:
            UserError: the folder has no record, or it cannot be read or lacks something.
        """
        path = folder / TRAINING_FILE
        if not path.is_file():
            raise UserError(
                f"PATH must be a model with its {TRAINING_FILE}, as the scripts of training/ leave it, found none in "
                f"'{folder}'"
            )
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"'{path}' must be JSON: {error}") from error
        found = content if isinstance(content, dict) else {}
        missing = [key for key in _KEYS if key not in found]
        if found.get("format") != _FORMAT or missing:
            raise UserError(f"'{path}' must be of format {_FORMAT} with {', '.join(_KEYS)}; lacks {missing or 'it'}")
        method = content["method"]
        return cls(
            script=content["script"],
            recipe=content["recipe"],
            base=BaseModel.from_dict(content["base_model"]),
            method=TrainingMethod(
                peft=method["peft"],
                frozen=tuple(method["frozen"]),
                trainable_parameters=method["trainable_parameters"],
                parameters=method["parameters"],
            ),
            data=content["data"],
            seed=content["seed"],
            versions=content["versions"],
            device=content["device"],
            devices=content["devices"],
            seconds=content["seconds"],
            resumed_from_step=content["resumed_from_step"],
            steps=content["steps"],
            loss=tuple((step, loss) for step, loss in content["loss"]),
            eval_loss=tuple((step, loss) for step, loss in content["eval_loss"]),
        )

    def write(self, folder: Path) -> None:
        """Write the record into the model's folder: whole, or not at all."""
        write_json(
            folder / TRAINING_FILE,
            {
                "format": _FORMAT,
                "script": self.script,
                "recipe": self.recipe,
                "base_model": self.base.to_dict(),
                "method": vars(self.method),
                "data": self.data,
                "seed": self.seed,
                "versions": self.versions,
                "device": self.device,
                "devices": self.devices,
                "seconds": self.seconds,
                "resumed_from_step": self.resumed_from_step,
                "steps": self.steps,
                "loss": self.loss,
                "eval_loss": self.eval_loss,
            },
        )

    @property
    def is_of_pairs(self) -> bool:
        """Whether the data were pairs of clean and artifact images, and not SynArtifact's single ones."""
        return "pairs" in self.data

    @property
    def dataset_ids(self) -> tuple[str, ...]:
        """Ids on the Hub among what it was trained on; a folder's record has its name alone, without a slash."""
        source = self.data.get("source", "")
        return (source,) if is_hub_id(source) else ()


@dataclass(frozen=True)
class TrainingFacts:
    """
    What whoever loads a model needs of its record, as far as there is one.

    Attributes:
        base (`BaseModel`, *optional*): What the model was trained from.
        coordinates (`str`, *optional*): How it was trained to write boxes.
    """

    base: BaseModel | None = None
    coordinates: str | None = None

    @classmethod
    def from_content(cls, content: Any) -> TrainingFacts:
        """Read the facts from a parsed `training.json`; from one that another program left, none."""
        if not isinstance(content, dict):
            return cls()
        base, data = content.get("base_model"), content.get("data")
        try:
            known_base = BaseModel.from_dict(base) if isinstance(base, dict) else None
        except (AttributeError, KeyError, TypeError):
            known_base = None
        coordinates = data.get("coordinates") if isinstance(data, dict) else None
        return cls(known_base, coordinates if isinstance(coordinates, str) else None)
