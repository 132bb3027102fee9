"""Edits of pairs: which of them hold for the files of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from ..edits.digests import pair_digest
from ..edits.layer import EDITS_FILE
from ..edits.planned import EditSurvey, PlannedEdits, find_layer
from ..edits.records import Key, SampleEdits
from ..utils.errors import UserError
from .storage import read_rows


def data_folder(file: str | Path) -> Path:
    """Return the folder that the layer of a Parquet file lies in: that of the run or of the prepared dataset."""
    folder = Path(file).absolute().parent
    return folder.parent if folder.name == "data" else folder


def plan_edits(files: Sequence[str], folder: Path | None = None) -> PlannedEdits:
    """
    Compare the layers beside files of pairs with the pairs.

    Args:
        files (`Sequence[str]`): Paths of Parquet files.
        folder (`Path`, *optional*): Folder of a layer to take instead.

    Raises:
        UserError: A line of a layer is no edit, or `folder` has no layer.
    """
    if folder and not (folder / EDITS_FILE).is_file():
        raise UserError(
            f"`edits` must be a folder with {EDITS_FILE}, got '{folder}'; edit it in `artiagent app --data`"
        )
    folders = [folder] if folder else list(dict.fromkeys(map(data_folder, files)))
    layers = [layer for layer in map(find_layer, folders) if layer is not None]
    survey = EditSurvey(layers)
    for path in files if layers else ():
        if survey.wanted.isdisjoint(keys_of(path)):
            continue
        for row in read_rows([path]):
            survey.see(("", row["pair_id"]), lambda row=row: pair_digest(row))  # type: ignore[misc]
    return survey.planned()


def layer_stamps(files: Sequence[str], edits: str | bool) -> list[str]:
    """Return path and state of the layers of files of pairs, by which caches of other edits are told apart."""
    if edits is False:
        return ["none"]
    folders = list(dict.fromkeys(map(data_folder, files))) if edits is True else [Path(edits).absolute()]
    found = [folder / EDITS_FILE for folder in folders if (folder / EDITS_FILE).is_file()]
    return [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in found]


def keys_of(path: str) -> list[Key]:
    """Return the keys of the pairs in a Parquet file."""
    return [("", pair_id) for pair_id in pq.read_table(path, columns=["pair_id"])["pair_id"].to_pylist()]


def edits_in(path: str, planned: PlannedEdits) -> dict[str, SampleEdits]:
    """Return the edits of the pairs in a Parquet file, by the pair's id."""
    if not planned.samples:
        return {}
    return {pair_id: edits for (_, pair_id), edits in planned.among(keys_of(path)).items()}
