"""What a run may be continued with: everything that its pairs depend on must stay, and its amounts may grow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..schema.run_record import RunRecord
from .shards import RunMismatchError


def check_continues(out: Path, recorded: RunRecord, current: Mapping[str, Any]) -> None:
    """
    Check that a run can be continued with what it would now depend on. It may have got more photos, with annotations
    of their own, and more pairs per image unless these depend on their shard.

    Args:
        out (`Path`): Folder of the run, for messages.
        recorded (`RunRecord`): Its record.
        current (`Mapping`): Entries of its identity as they are now, or some of them; JSON-serialisable.

    Raises:
        RunMismatchError: Something else has changed.
    """
    may_differ = {"sources.count", "sources.sha256"}
    if dict(recorded.sources) != current.get("sources", recorded.sources):
        may_differ.add("perception.sha256")
    before, now = (settings.get("pairs_per_image", 1) for settings in (recorded.settings, current["settings"]))
    if before < now and current["settings"].get("balance") != "shard":
        may_differ.add("settings.pairs_per_image")
    different = sorted(set(differences(recorded.identity, current)) - may_differ)
    if different:
        raise RunMismatchError(
            f"'{out}' holds a run with another {', '.join(different)}; give the same settings to resume that run, or "
            "choose another output folder (--force-new starts one next to it). The run is as it was"
        )


def differences(recorded: Mapping[str, Any], current: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """
    Yield the dotted names of the entries of `current` whose values differ in `recorded`. A switch that a record does
    not know is newer than it, and was off.

    Args:
        recorded (`Mapping`): Identity of a recorded run.
        current (`Mapping`): Identity of this run.
        prefix (`str`, *optional*, defaults to `""`): Beginning of the names, used in recursion.
    """
    for key, value in current.items():
        other = recorded.get(key, False if value is False else None)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            yield from differences(other, value, f"{prefix}{key}.")
        elif value != other:
            yield f"{prefix}{key}"
