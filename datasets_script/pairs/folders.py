"""Fill the folder of a prepared dataset, of pairs or of a benchmark. Imports nothing heavy."""

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
    Give a folder to fill, which becomes `out` once the block has succeeded, with a record of how it was made; a
    builder's `cache` and locks are left out.

    Raises:
        FileExistsError: `out` exists.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists already")
    with replacing_folder(out) as folder:
        yield folder
        shutil.rmtree(folder / "cache", ignore_errors=True)
        for lock in folder.rglob("*.lock"):
            lock.unlink()
        write_json(folder / "prepared.json", {"options": dict(options), "versions": versions("datasets", "pyarrow")})
