"""Cards of datasets: the README.md that the Hub and `load_dataset` read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .files import data_fingerprint, write_text


def patterns_of(config: Mapping[str, Any]) -> list[str]:
    """Return the patterns of files of an entry in `configs`, of all splits."""
    paths = [entry["path"] for entry in config["data_files"]]
    return [pattern for path in paths for pattern in ([path] if isinstance(path, str) else path)]


def write_data_card(folder: Path, content: str) -> None:
    """
    Write the card of a dataset atomically, with a fingerprint of its rows in each entry of `configs`.

    The cache of `datasets` tells local folders of one name apart by their cards alone. Without the fingerprint,
    `load_dataset("b/out")` would answer the rows of `a/out` if that was loaded before and has an equal card.

    Args:
        folder (`Path`): Folder of the dataset, with all its Parquet files.
        content (`str`): The card. Its metadata must have `configs`, whose `data_files` are lists of splits.
    """
    # The help of `push` reads cards' patterns, and is light.
    from huggingface_hub import DatasetCard

    card = DatasetCard(content)
    for config in card.data["configs"]:
        tables = {file for name in patterns_of(config) if name.endswith(".parquet") for file in folder.glob(name)}
        # Images are named by their content in the rows, so they need not be read.
        config["description"] = f"rows {data_fingerprint(tables)}"
    write_text(folder / "README.md", str(card))
