"""Export pairs: in one of the formats, with a record of what they are from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tqdm import tqdm

from evaluate_metrics.functional.versions import recorded_versions

from ...schema.run_record import RUN_FILE, RunRecord
from ...utils.errors import UserError
from ...utils.files import replacing_folder, write_json
from ..storage import check_shards, find_shards, read_rows
from .common import INFO_FILE, ExportSettings
from .formats import find_writer


def export_pairs(
    source: str | Sequence[str],
    folder: Path,
    name: str,
    settings: ExportSettings = ExportSettings(),  # noqa: B008
    show_progress: bool = True,
) -> int:
    """
    Writes pairs in another format. `folder` is whole or absent: all is written beside it and renamed at the end.

    Args:
        source (`str` or sequence of `str`): See [`datasets_script.pairs.builder.PairsConfig`].
        folder (`Path`): To write; missing or empty.
        name (`str`): One of [`datasets_script.pairs.export.formats.FORMATS`].
        settings (`ExportSettings`): What the formats leave open.
        show_progress (`bool`): Whether to show a bar.

    Returns:
        `int`: The number of pairs.

    Raises:
        UserError: the source holds no completed run, or the folder is not empty.
    """
    files = find_shards(source)
    check_shards(files)
    info = export_info(files, name, settings)
    count = sum(pq.read_metadata(path).num_rows for path in files)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"'{folder.absolute()}' exists and is not empty: choose another folder, or remove it")
    with replacing_folder(folder) as temporary:
        rows = tqdm(read_rows(files), "export", count, unit="pair", disable=not show_progress)
        find_writer(name)(temporary, rows, info, settings)
        write_json(temporary / INFO_FILE, info)
    return count


def export_info(files: Sequence[str], name: str, settings: ExportSettings) -> dict[str, Any]:
    """Return what an export records of itself: its settings, versions, and the runs that its pairs are from."""
    folders = dict.fromkeys(Path(path).parents[1] for path in files)
    runs = [RunRecord.read(folder) for folder in folders if (folder / RUN_FILE).exists()]
    licenses = sorted({run.license or "unknown" for run in runs})
    return {
        "format": name,
        "export": asdict(settings),
        "versions": recorded_versions(),
        "license": ", ".join(licenses) or "unknown",
        "runs": [run.origin for run in runs],
    }
