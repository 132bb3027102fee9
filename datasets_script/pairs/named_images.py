"""
Rows that name the files of their images, as a prepared folder holds them.

`datasets` reads such rows as an image folder, without this package: a column `clean_file_name` becomes the column
`clean`, and `images_file_names` the column `images`. The card says for each configuration which Parquet files its rows
are in (`metadata_filenames`), and their columns (`features`). Files are named from the folder of the Parquet file,
which therefore lies above all images. One Parquet file a split: `datasets` reads several in no order.
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
    Return the name of an image, which depends on its bytes: equal images are one file, and who has the rows can tell
    whether the images are theirs.

    Args:
        content (`bytes`): Of a PNG file.
        folder (`str`): In which it is to lie.
    """
    return f"{folder}/{hashlib.sha256(content).hexdigest()[:32]}.png"


def card_config(
    name: str, features: Features, splits: Iterable[str], folders: Sequence[str], is_default: bool = False
) -> dict[str, Any]:
    """
    Return the entry of a card's `configs` by which `load_dataset` reads a configuration.

    Args:
        name (`str`): The configuration.
        features (`Features`): Its columns.
        splits (`Iterable[str]`): Those there are, with their rows in `NAME-SPLIT.parquet`.
        folders (`Sequence[str]`): Those of [`~datasets_script.pairs.configurations.IMAGE_FOLDERS`] that its images lie
            in.
        is_default (`bool`, *optional*, defaults to `False`): Whether `load_dataset` takes it where it is given no
            name.
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
    """Return the columns of rows that name files."""
    return Features(_stored_feature(features))


def name_images(row: dict[str, Any], features: Features, name: Callable[[bytes], str]) -> dict[str, Any]:
    """
    Put names in place of images.

    Args:
        row (`dict`): With `features`, images as `{"bytes", "path"}`.
        features (`Features`): Its columns.
        name (`Callable[[bytes], str]`): Gives an image its name.
    """
    named: dict[str, Any] = _stored(row, features, name)
    return named


def columns_of(names: Sequence[str]) -> list[str]:
    """Return the columns that `datasets` makes of those of a Parquet file."""
    return [name.removesuffix("_file_names").removesuffix("_file_name") for name in names]


def names_images(schema: pa.Schema) -> bool:
    """Tell whether rows with these columns name the files of their images."""
    return any(name.endswith(_SUFFIXES) for name in schema.names)


def read_named_rows(path: str, features: Features) -> Iterator[dict[str, Any]]:
    """
    Read rows with the bytes of their images.

    Args:
        path (`str`): The Parquet file.
        features (`Features`): The columns of the rows.

    Returns:
        `Iterator[dict]`: Images as `{"bytes", "path"}`.
    """
    folder = Path(path).parent

    def read(name: str) -> dict[str, Any]:
        return {"bytes": (folder / name).read_bytes(), "path": None}

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                yield _restored(row, features, read)


def named_files(path: Path) -> set[str]:
    """Return all files that the rows of a Parquet file name, none for one that holds its images."""
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
    """The column that `datasets` makes the column `key` of."""
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
    """The inverse of [`_stored`]."""
    if value is None or isinstance(feature, Value):
        return value
    if isinstance(feature, datasets.Image):
        return read(value)
    if isinstance(feature, List):
        return [_restored(item, feature.feature, read) for item in value]
    return {key: _restored(value[_stored_name(key, item)], item, read) for key, item in feature.items()}
