"""Record of a training, `training.json`, which the scripts of `training/` write beside each model."""

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
        id (`str`): Id on the Hub, or the name of its folder.
        revision (`str`, *optional*): Its commit, or the fingerprint of its folder.
        base (`BaseModel`, *optional*): The model that it was itself trained from, if recorded.
    """

    id: str
    revision: str | None
    base: BaseModel | None = None

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> BaseModel:
        """Read the output of [`to_dict`]; an id that is a path is reduced to its last name."""
        before = content.get("base_model")
        return cls(last_name(content["id"]), content["revision"], None if before is None else cls.from_dict(before))

    def to_dict(self) -> dict[str, Any]:
        """Return `id`, `revision` and, if known, `base_model`."""
        content: dict[str, Any] = {"id": self.id, "revision": self.revision}
        if self.base is not None:
            content["base_model"] = self.base.to_dict()
        return content

    @property
    def on_hub(self) -> BaseModel | None:
        """Return this model, or its nearest ancestor on the Hub; `None` if there is none."""
        return self if self.is_on_hub else self.base and self.base.on_hub

    @property
    def is_on_hub(self) -> bool:
        """Return whether it was loaded from the Hub."""
        fingerprint = (self.revision or "").startswith("sha256:")
        return is_hub_id(self.id) and not fingerprint


@dataclass(frozen=True)
class TrainingMethod:
    """
    Which parameters of a model were trained.

    Attributes:
        peft (`bool`): Whether adapters were trained instead of the model's own weights.
        frozen (`tuple[str, ...]`): Parts that were not trained.
        trainable_parameters (`int`): Number of trained parameters.
        parameters (`int`): Number of all parameters.
    """

    peft: bool
    frozen: tuple[str, ...]
    trainable_parameters: int
    parameters: int


@dataclass(frozen=True)
class TrainingRecord:
    """
    Content of `training.json`.

    Attributes:
        script (`str`): Script that trained the model.
        recipe (`Mapping`): Arguments of the script.
        base (`BaseModel`): Model that training started from.
        method (`TrainingMethod`): Which of its parameters were trained.
        data (`Mapping`): Facts about the data, see `training.vlm.data.Conversations.record`.
        seed (`int`): Seed of the training.
        versions (`Mapping[str, str]`): Versions of packages.
        device (`str`): Name of the device.
        devices (`int`): Number of devices.
        seconds (`float`): Duration since the training was last continued.
        resumed_from_step (`int`, *optional*): Step at which it was last continued.
        steps (`int`): Number of optimizer steps.
        loss (`tuple[tuple[int, float], ...]`): Steps and their losses.
        eval_loss (`tuple[tuple[int, float], ...]`): The same on the test split; empty without one.
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
            folder (`Path`): Folder of the model.

        Raises:
            UserError: The folder has no record, or the record cannot be read or is incomplete.
        """
        path = folder / TRAINING_FILE
        if not path.is_file():
            raise UserError(
                f"PATH must be a model with its {TRAINING_FILE}, as the scripts of training/ write it, found none in "
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
        """Write the record into the model's folder, atomically."""
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
        """Return whether the data were pairs of clean and artifact images, not SynArtifact's single images."""
        return "pairs" in self.data

    @property
    def dataset_ids(self) -> tuple[str, ...]:
        """
        Return the Hub ids among the data's sources. A local folder is recorded by name alone, so it is never one.
        """
        source = self.data.get("source", "")
        return (source,) if is_hub_id(source) else ()


@dataclass(frozen=True)
class TrainingFacts:
    """
    The facts of a training record that loading a model needs; `None` if unknown.

    Attributes:
        base (`BaseModel`, *optional*): Model that training started from.
        coordinates (`str`, *optional*): Box convention that the model was trained on.
    """

    base: BaseModel | None = None
    coordinates: str | None = None

    @classmethod
    def from_content(cls, content: Any) -> TrainingFacts:
        """Read the facts from a parsed `training.json`; a file of another program yields none."""
        if not isinstance(content, dict):
            return cls()
        base, data = content.get("base_model"), content.get("data")
        try:
            known_base = BaseModel.from_dict(base) if isinstance(base, dict) else None
        except (AttributeError, KeyError, TypeError):
            known_base = None
        coordinates = data.get("coordinates") if isinstance(data, dict) else None
        return cls(known_base, coordinates if isinstance(coordinates, str) else None)
