"""Atomic writing of the folder of a prepared dataset. Imports no heavy library."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evaluate_metrics.functional.versions import versions

from ..utils.files import replacing_folder, write_json


@contextmanager
def whole_folder(out: Path, options: Mapping[str, Any]) -> Iterator[Path]:
    """
    Provide a temporary folder to fill, and rename it to `out` once the block has succeeded. A builder's `cache` and
    lock files are removed, and `prepared.json` records options and versions.

    Args:
        out (`Path`): The folder to write; must not exist.
        options (`Mapping[str, Any]`): The options to record, JSON-serialisable.

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
        write_json(folder / "prepared.json", {"options": dict(options), "versions": versions("datasets", "pyarrow")})
