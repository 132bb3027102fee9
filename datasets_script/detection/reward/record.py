"""What a reward model needs to know beside its network: `reward_model.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluate_metrics.functional.versions import versions

from ...utils.errors import ArgumentError, UserError
from ...utils.files import write_json
from ..model_files import find_model_file, read_model_record
from .preprocessing import RewardPreprocessing


REWARD_FILE = "reward_model.json"
"""File beside the weights by which a folder or a repository is known as a reward model."""

_FORMAT = 1
_KEYS = ("preprocessing", "trunk", "license", "versions")


@dataclass(frozen=True)
class RewardRecord:
    """
    Content of `reward_model.json`.

    Attributes:
        preprocessing (`RewardPreprocessing`): What the network sees of an image, as in its training.
        trunk (`str`, *optional*): Name of the trunk, or of the model that it was taken from.
        license (`str`, *optional*): Licence of the pretrained weights that training started from; `None` if unknown.
        versions (`Mapping[str, str]`): Versions of packages that it was made with.
    """

    preprocessing: RewardPreprocessing = field(default_factory=RewardPreprocessing)
    trunk: str | None = None
    license: str | None = None
    versions: Mapping[str, str] = field(default_factory=lambda: versions("torch", "transformers", "timm"))

    @classmethod
    def read(cls, path: Path) -> RewardRecord:
        """
        Read a record.

        Args:
            path (`Path`): The file.

        Raises:
            UserError: It cannot be read, is incomplete, or holds values that are out of range.
        """
        content = read_model_record(path, _FORMAT, _KEYS, "model")
        try:
            preprocessing = RewardPreprocessing.from_dict(content["preprocessing"])
        except (TypeError, AttributeError, ArgumentError) as error:
            raise UserError(f"'{path}' holds a value that cannot be used: {error}") from error
        return cls(preprocessing, content["trunk"], content["license"], content["versions"])

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the file, JSON-serialisable."""
        return {
            "format": _FORMAT,
            "preprocessing": self.preprocessing.to_dict(),
            "trunk": self.trunk,
            "license": self.license,
            "versions": dict(self.versions),
        }

    def write(self, folder: Path) -> None:
        """Write the record into a folder, atomically."""
        write_json(folder / REWARD_FILE, self.to_dict())


def find_reward_record(model: str, revision: str | None = None) -> Path | None:
    """
    Return the path of a reward model's `reward_model.json`, or `None` if there is none.

    Args:
        model (`str`): A folder, or the id of a repository on the Hub.
        revision (`str`, *optional*): Branch, tag or commit of a repository.
    """
    return find_model_file(model, REWARD_FILE, revision)
