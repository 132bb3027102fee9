"""Export of pairs to one of the formats, with a record of their origin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tqdm import tqdm

from evaluate_metrics.functional.versions import recorded_versions

from ...schema.run_record import RUN_FILE, RunRecord
from ...utils.errors import UserError
from ...utils.files import replacing_folder, write_json
from ..filters import EVERY_PAIR, PairFilter
from ..storage import check_shards, find_shards, read_rows
from .common import INFO_FILE, ExportSettings
from .formats import find_writer


def export_pairs(
    source: str | Sequence[str],
    folder: Path,
    name: str,
    settings: ExportSettings = ExportSettings(),  # noqa: B008
    show_progress: bool = True,
    only: PairFilter = EVERY_PAIR,
) -> int:
    """
    Export pairs to another format, atomically.

    Args:
        source (`str` or sequence of `str`): As in [`datasets_script.pairs.builder.PairsConfig`].
        folder (`Path`): The folder to write; must be missing or empty.
        name (`str`): The format, one of [`datasets_script.pairs.export.formats.FORMATS`].
        settings (`ExportSettings`, *optional*): Settings of the formats.
        show_progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.
        only (`PairFilter`, *optional*): Choice of the pairs, recorded in `info.json`; by default all.

    Returns:
        `int`: The number of pairs.

    Raises:
        UserError: `source` does not hold a completed run, `folder` is not empty, or `only` keeps no pair.
    """
    files = find_shards(source)
    check_shards(files)
    info = export_info(files, name, settings) | ({} if only == EVERY_PAIR else {"only": asdict(only)})
    total = sum(pq.read_metadata(path).num_rows for path in files)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"`folder` must be missing or empty, got '{folder.absolute()}'; choose another, or remove it. Nothing was "
            "written"
        )
    with replacing_folder(folder) as temporary:
        rows = tqdm(read_rows(files, only), "export", total, unit="pair", disable=not show_progress)
        count = 0

        def counted() -> Iterator[dict[str, Any]]:
            nonlocal count
            for row in rows:
                count += 1
                yield row

        find_writer(name)(temporary, counted(), info, settings)
        if total and not count:
            raise UserError(f"`only` must keep at least one of {total} pairs, kept none: {only}")
        write_json(temporary / INFO_FILE, info)
    return count


def export_info(files: Sequence[str], name: str, settings: ExportSettings) -> dict[str, Any]:
    """
    Compose the record of an export.

    Args:
        files (`Sequence[str]`): Parquet files of the pairs.
        name (`str`): The format.
        settings (`ExportSettings`): Settings of the format.

    Returns:
        `dict`: Format, settings, versions, licence, and the origin of the runs that wrote the pairs.
    """
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
