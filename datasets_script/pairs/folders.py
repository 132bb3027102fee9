"""Atomic writing of the folder of a prepared dataset. Imports no heavy library."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evaluate_metrics.functional.versions import versions

from ..edits.planned import EditReport
from ..utils.files import replacing_folder, write_json


PREPARED_FILE = "prepared.json"


@contextmanager
def whole_folder(out: Path, options: Mapping[str, Any], edits: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """
    Provide a temporary folder to fill, and rename it to `out` once the block has succeeded. A builder's `cache` and
    lock files are removed, and `prepared.json` records options and versions.

    Args:
        out (`Path`): The folder to write; must not exist.
        options (`Mapping[str, Any]`): The options to record, JSON-serialisable.
        edits (`Mapping[str, Any]`, *optional*): What became of edits, to record as well if there were any.

    Raises:
        FileExistsError: `out` exists.
    """
    if out.exists():
        raise FileExistsError(f"`out` must not exist, got '{out}'; remove it or choose another folder")
    with replacing_folder(out) as folder:
        yield folder
        shutil.rmtree(folder / "cache", ignore_errors=True)
        for lock in folder.rglob("*.lock"):
            lock.unlink()
        applied = {"edits": dict(edits)} if edits and any(edits.values()) else {}
        # Not the folder of a layer: a path of this machine.
        chosen = {name: value for name, value in options.items() if name != "edits" or value is False}
        written = {"options": chosen, **applied, "versions": versions("datasets", "pyarrow")}
        write_json(folder / PREPARED_FILE, written)


def prepared_edits(folder: Path) -> EditReport:
    """Read what became of people's edits in a prepared folder."""
    stored = json.loads((folder / PREPARED_FILE).read_text(encoding="utf-8")).get("edits")
    return EditReport.from_dict(stored) if stored else EditReport()
