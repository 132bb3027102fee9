"""Record of a run, `run.json` in its folder: what identifies the run, and its results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from ..utils.errors import UserError
from ..utils.files import write_json


Record = TypeVar("Record")

RUN_FILE = "run.json"

# Everything the pairs of a run depend on. A run can only be continued with the same values, and everything made from
# its pairs (cards, reports, exports, trained models) records them.
_IDENTITY: dict[str, type] = {
    "settings": dict,
    "model_revision": str,
    "perception": dict,
    "curation": dict,
    "versions": dict,
    "sources": dict,
}
_RESULTS: dict[str, type] = {
    "fingerprint": str,
    "pairs": int,
    "rejected": int,
    "made": dict,
    "accepted": dict,
    "acceptance": dict,
    "rejected_at": dict,
}
# Results that a complete record must hold.
_NEEDED = ("fingerprint", "pairs")


@dataclass(frozen=True)
class RunRecord:
    """
    Content of `run.json`. The results but `fingerprint` are empty until the run is complete.

    Attributes:
        settings (`Mapping`): `RunSettings` as a dictionary.
        model_revision (`str`): Commit of the diffusion model, or a fingerprint of its files.
        perception, curation (`Mapping`): What the agents depend on besides the settings.
        versions (`Mapping[str, str]`): Versions of packages, see
            [`~evaluate_metrics.functional.versions.recorded_versions`].
        sources (`Mapping`): `count` of the source photos, and `sha256` of their names.
        status (`str`): `"running"` or `"complete"`.
        fingerprint (`str`): Hash of the identity that the run began with, repeated in the marker of every shard. It
            stays when the run grows.
        pairs, rejected (`int`): Number of pairs, and of rejections.
        made, accepted (`Mapping[str, int]`): Artifacts by type.
        acceptance (`Mapping`): `{"type/tool/kernel": {"made": …, "accepted": …}}`.
        rejected_at (`Mapping[str, int]`): Rejections by stage.
        counters (`Mapping[str, float]`): Transformer and token evaluations, and requests and tokens of the VLM. Each
            is an entry of its own in the file.
        seconds (`float`): Time spent.
        license (`str`): Hub identifier of the pairs' licence; empty if none was set.
        edits (`Mapping`): What became of people's edits, see [`~datasets_script.edits.planned.EditReport`]; empty if
            there were none.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    model_revision: str = ""
    perception: Mapping[str, Any] = field(default_factory=dict)
    curation: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, Any] = field(default_factory=dict)
    status: Literal["running", "complete"] = "running"
    fingerprint: str = ""
    pairs: int = 0
    rejected: int = 0
    made: Mapping[str, int] = field(default_factory=dict)
    accepted: Mapping[str, int] = field(default_factory=dict)
    acceptance: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    rejected_at: Mapping[str, int] = field(default_factory=dict)
    counters: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    license: str = ""
    edits: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """
        Read the record in the folder of a run.

        Args:
            folder (`Path`): Folder written by `artiagent synthesize`.

        Raises:
            UserError: There is no record, or its content is not that of one.
        """
        path = folder / RUN_FILE
        if not path.is_file():
            raise UserError(
                f"'{folder}' must be a folder written by `artiagent synthesize`, found no run.json in it; "
                "check the path. If the file was lost, the command that began the run writes it again and keeps the "
                "pairs"
            )
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise UserError(
                f"'{path}' must be the record of a run, but {error}; restore a copy of it, or delete it and repeat "
                "the command that began the run, which writes it again and keeps the pairs"
            ) from error

    @classmethod
    def from_dict(cls, content: Any) -> RunRecord:
        """
        Create a record from the content of a `run.json`, after checking it.

        Raises:
            ValueError: An entry is missing or of the wrong type; the message names it.
        """
        if not isinstance(content, dict):
            raise ValueError(f"it must hold an object, got {type(content).__name__}")
        status = content.get("status")
        if status not in ("running", "complete"):
            raise ValueError(f"`status` must be 'running' or 'complete', got {status!r}")
        needed = (*_IDENTITY, *_NEEDED) if status == "complete" else ()
        if missing := [name for name in needed if name not in content]:
            raise ValueError(f"it must hold {', '.join(f'`{name}`' for name in missing)}, got none")
        known = _IDENTITY | _RESULTS
        for name, kind in known.items():
            if name in content and not isinstance(content[name], kind):
                raise ValueError(f"`{name}` must be of type {kind.__name__}, got {content[name]!r}")
        return cls(
            **{name: content[name] for name in known if name in content},
            status=status,
            counters={
                name: value
                for name, value in content.items()
                if name not in known and isinstance(value, (int, float)) and name != "seconds"
            },
            seconds=content.get("seconds", 0.0),
            license=content.get("license", ""),
            edits=content.get("edits", {}),
        )

    def write(self, folder: Path) -> None:
        """Write the record into the folder of a run, atomically."""
        write_json(folder / RUN_FILE, self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Return the content of `run.json`, JSON-serialisable."""
        content = {**self.identity, "status": self.status}
        if self.fingerprint:
            content["fingerprint"] = self.fingerprint
        if self.is_complete:
            results = {name: getattr(self, name) for name in _RESULTS}
            content |= {**results, **self.counters, "seconds": self.seconds}
        extra = {"license": self.license, "edits": self.edits}
        return content | {name: value for name, value in extra.items() if value}

    @property
    def is_complete(self) -> bool:
        """Return whether the run has finished, so that its results are known."""
        return self.status == "complete"

    @property
    def identity(self) -> dict[str, Any]:
        """Return what the pairs depend on, by entry."""
        return {name: getattr(self, name) for name in _IDENTITY}

    @property
    def origin(self) -> dict[str, Any]:
        """
        Return what anything made from the pairs records of the run: its identity, and the fingerprint once known.
        """
        return self.identity | ({"fingerprint": self.fingerprint} if self.fingerprint else {})


def holds_run(out: Path) -> bool:
    """
    Return whether there is a run in a folder, or nothing yet.

    Args:
        out (`Path`): The folder.

    Raises:
        UserError: There is something else in it, or it is a file.
    """
    if (out / RUN_FILE).is_file():
        return True
    if out.exists() and (not out.is_dir() or any(path.name != ".locks" for path in out.iterdir())):
        raise UserError(f"OUT must be a new or empty folder, or one of the same command, got '{out}'")
    return False


def command_of(folder: Path) -> str:
    """Return the command that `run.json` in a folder names: empty for runs that make pairs, and if there is none."""
    try:
        content = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # reading the record tells
        return ""
    return str(content.get("command", "")) if isinstance(content, dict) else ""


def read_record_of(folder: Path, command: str, record: type[Record]) -> Record:
    """
    Read the record in the folder of a command whose `run.json` names it and otherwise holds the record's fields.

    Args:
        folder (`Path`): The folder.
        command (`str`): The command, such as `"generate"`.
        record (`type`): Dataclass of the record.

    Raises:
        UserError: There is none, or its content is not that of one.
    """
    path = folder / RUN_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"'{folder}' must be a folder written by `artiagent {command}`, but '{path}' cannot be read: {error}"
        ) from error
    if not isinstance(content, dict) or content.pop("command", None) != command:
        raise UserError(f"'{folder}' must be a folder written by `artiagent {command}`, got one of another command")
    try:
        return record(**content)
    except TypeError as error:
        raise UserError(f"'{path}' must be the record of a run, but {error}; restore a copy of it") from error
