"""
Rows that refer to image files by name, as in a prepared folder.

`datasets` reads such rows as an image folder, without this package: the column `clean_file_name` becomes the column
`clean`, and `images_file_names` becomes `images`. The card gives the Parquet files (`metadata_filenames`) and columns
(`features`) of each configuration. File names are relative to the folder of the Parquet file, which therefore lies
above all images. Each split is one Parquet file, because `datasets` reads several in no fixed order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, List, Value


_SUFFIXES = ("_file_names", "_file_name")


def image_name(content: bytes, folder: str) -> str:
    """
    Compose the file name of an image from the hash of its bytes. Equal images share a file, and rows can be checked
    against their images.

    Args:
        content (`bytes`): Content of a PNG file.
        folder (`str`): Folder of the file, relative to the prepared folder.

    Returns:
        `str`: Path relative to the prepared folder.
    """
    return f"{folder}/{hashlib.sha256(content).hexdigest()[:32]}.png"


def card_config(
    name: str, features: Features, splits: Iterable[str], folders: Sequence[str], is_default: bool = False
) -> dict[str, Any]:
    """
    Compose the entry in `configs` of a card by which `load_dataset` reads a configuration.

    Args:
        name (`str`): Name of the configuration.
        features (`Features`): Columns of its rows.
        splits (`Iterable[str]`): Names of its splits, whose rows are in `NAME-SPLIT.parquet`.
        folders (`Sequence[str]`): Folders of its images, among
            [`~datasets_script.pairs.configurations.IMAGE_FOLDERS`].
        is_default (`bool`, *optional*, defaults to `False`): Whether `load_dataset` reads this configuration if none
            is named.

    Returns:
        `dict`: The entry, for `DatasetCardData(configs=[…])`.
    """
    splits = list(splits)
    return {
        "config_name": name,
        **({"default": True} if is_default else {}),
        "metadata_filenames": [f"{name}-{split}.parquet" for split in splits],
        "data_files": [
            {
                "split": split,
                "path": [f"{name}-{split}.parquet", *(f"{folder}/{split}/*/*.png" for folder in folders)],
            }
            for split in splits
        ],
        "features": features._to_yaml_list(),
    }


def stored_columns(features: Features) -> Features:
    """Return the columns of rows that refer to image files, for rows with the columns `features`."""
    return Features(_stored_feature(features))


def name_images(row: dict[str, Any], features: Features, name: Callable[[bytes], str]) -> dict[str, Any]:
    """
    Replace the images of a row by file names.

    Args:
        row (`dict`): A row with the columns `features`, images as `{"bytes", "path"}`.
        features (`Features`): Columns of the row.
        name (`Callable[[bytes], str]`): Returns the file name of an image, given its bytes.

    Returns:
        `dict`: A row with the columns [`stored_columns`]`(features)`.
    """
    named: dict[str, Any] = _stored(row, features, name)
    return named


def columns_of(names: Sequence[str]) -> list[str]:
    """Return the column names that `datasets` derives from those of a Parquet file."""
    return [name.removesuffix("_file_names").removesuffix("_file_name") for name in names]


def names_images(schema: pa.Schema) -> bool:
    """Return whether rows with these columns refer to image files by name."""
    return any(name.endswith(_SUFFIXES) for name in schema.names)


def read_named_rows(path: str, features: Features) -> Iterator[dict[str, Any]]:
    """
    Read rows that refer to image files, and load the bytes of the images.

    Args:
        path (`str`): The Parquet file.
        features (`Features`): Columns of the rows to return.

    Returns:
        `Iterator[dict]`: Rows with images as `{"bytes", "path"}`.
    """
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                yield restored_row(row, features, Path(path).parent)


def restored_row(row: dict[str, Any], features: Features, folder: Path) -> dict[str, Any]:
    """
    Load the bytes of the images that a row refers to; the inverse of [`name_images`].

    Args:
        row (`dict`): A row with the columns [`stored_columns`]`(features)`.
        features (`Features`): Columns of the row to return.
        folder (`Path`): Folder that file names are relative to.

    Returns:
        `dict`: The row with images as `{"bytes", "path"}`.
    """

    def read(name: str) -> dict[str, Any]:
        return {"bytes": (folder / name).read_bytes(), "path": None}

    restored: dict[str, Any] = _restored(row, features, read)
    return restored


def named_files(path: Path) -> set[str]:
    """Return the image files that the rows of a Parquet file refer to; empty if the rows hold the images."""
    with pq.ParquetFile(path) as file:
        if not names_images(file.schema_arrow):
            return set()
        return {name for batch in file.iter_batches() for row in batch.to_pylist() for name in _names_in(row)}


def _names_in(row: dict[str, Any]) -> Iterator[str]:
    for key, value in row.items():
        if key.endswith("_file_name"):
            yield from [value] if value is not None else []
        elif key.endswith("_file_names"):
            yield from value
        elif isinstance(value, list):
            for item in value:
                yield from _names_in(item) if isinstance(item, dict) else ()


def _stored_name(key: str, feature: Any) -> str:
    """Return the stored column from which `datasets` derives the column `key`."""
    if isinstance(feature, datasets.Image):
        return f"{key}_file_name"
    return f"{key}_file_names" if isinstance(feature, List) and isinstance(feature.feature, datasets.Image) else key


def _stored_feature(feature: Any) -> Any:
    if isinstance(feature, datasets.Image):
        return Value("string")
    if isinstance(feature, List):
        return List(_stored_feature(feature.feature), length=feature.length)
    if isinstance(feature, dict):
        return {_stored_name(key, item): _stored_feature(item) for key, item in feature.items()}
    return feature


def _stored(value: Any, feature: Any, name: Callable[[bytes], str]) -> Any:
    if value is None or isinstance(feature, Value):
        return value
    if isinstance(feature, datasets.Image):
        return name(value["bytes"])
    if isinstance(feature, List):
        return [_stored(item, feature.feature, name) for item in value]
    return {_stored_name(key, item): _stored(value[key], item, name) for key, item in feature.items()}


def _restored(value: Any, feature: Any, read: Callable[[str], dict[str, Any]]) -> Any:
    """Invert [`_stored`]."""
    if value is None or isinstance(feature, Value):
        return value
    if isinstance(feature, datasets.Image):
        return read(value)
    if isinstance(feature, List):
        return [_restored(item, feature.feature, read) for item in value]
    # Older files lack columns, which `current_row` derives.
    return {key: _restored(value.get(_stored_name(key, item)), item, read) for key, item in feature.items()}
