"""
Archives of pairs: zip files that hold each image once, and of each configuration the rows as a Parquet file that names
the images.

`load_dataset` reads them without this package, as an image folder: the card says for each configuration which of the
Parquet files its rows are (`metadata_filenames`), and the columns (`features`).
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, List, Value

from ..schema.features import PAIR_FEATURES


# `datasets` reads the directory of an archive for each image that it opens, 35 us for each file in it: with so many
# pairs 2 to 3 ms, while a 1024 px image takes some 60 ms to decode.
PAIRS_PER_ARCHIVE = 16
# Of a prepared folder.
FOLDER = "archives"
_PAIRS_FILE = "pairs.parquet"


class ArchiveWriter:
    """
    Write an archive.

    Args:
        path (`Path`): The zip file.
        features (`Mapping[str, Features]`): The columns of each configuration.
    """

    def __init__(self, path: Path, features: Mapping[str, Features]) -> None:
        # PNG does not get smaller, and what is not compressed can be read from any place.
        self._archive = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)
        self._features = features
        self._rows: dict[str, list[dict[str, Any]]] = {name: [] for name in features}
        self._names: dict[bytes, str] = {}

    def write(self, config: str, row: Mapping[str, Any]) -> None:
        """
        Add a row.

        Args:
            config (`str`): Its configuration.
            row (`Mapping[str, Any]`): Images as `{"bytes", "path"}`.
        """
        self._rows[config].append(_stored(row, self._features[config], self._add_image))

    def count_rows(self) -> dict[str, int]:
        """Return how many rows each configuration has."""
        return {config: len(rows) for config, rows in self._rows.items()}

    def __enter__(self) -> ArchiveWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        """Complete the file, unless the block has failed."""
        with self._archive:
            if kind is None:
                for config, rows in self._rows.items():
                    columns = Features(_stored_feature(self._features[config]))
                    table = pa.Table.from_pylist(rows, pa.schema(list(columns.arrow_schema)))
                    buffer = io.BytesIO()
                    pq.write_table(table, buffer)
                    self._add(f"{config}.parquet", buffer.getvalue())

    def _add_image(self, image: dict[str, Any]) -> str:
        digest = hashlib.sha256(image["bytes"]).digest()
        if digest not in self._names:
            self._names[digest] = f"images/{len(self._names):04d}.png"
            self._add(self._names[digest], image["bytes"])
        return self._names[digest]

    def _add(self, name: str, content: bytes) -> None:
        # The time of day is left out: equal pairs give equal files.
        self._archive.writestr(zipfile.ZipInfo(name), content)


def read_archive(path: str) -> Iterator[dict[str, Any]]:
    """
    Read the pairs of an archive.

    Args:
        path (`str`): The zip file.

    Returns:
        `Iterator[dict]`: Rows of `PAIR_FEATURES`, images as `{"bytes", "path"}`.
    """
    with zipfile.ZipFile(path) as archive:

        def read_image(name: str) -> dict[str, Any]:
            return {"bytes": archive.read(name), "path": None}

        for row in pq.read_table(archive_table(path)).to_pylist():
            yield _restored(row, PAIR_FEATURES, read_image)


def archive_table(path: str) -> io.BytesIO:
    """
    Return the Parquet file of the pairs of an archive, empty where it holds none.

    Raises:
        zipfile.BadZipFile: the archive is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        return io.BytesIO(archive.read(_PAIRS_FILE) if _PAIRS_FILE in archive.namelist() else b"")


def archive_columns(path: str) -> list[str]:
    """
    Return the columns of the pairs of an archive, none where it holds no pairs.

    Raises:
        zipfile.BadZipFile, pyarrow.ArrowInvalid: the archive is damaged.
    """
    table = archive_table(path)
    if not table.getvalue():
        return []
    stored = pq.read_schema(table).names
    return [key for key, feature in PAIR_FEATURES.items() if _stored_name(key, feature) in stored]


def count_archive_rows(path: Path) -> dict[str, int]:
    """
    Return how many rows each configuration has in an archive.

    Raises:
        zipfile.BadZipFile, pyarrow.ArrowInvalid: the archive is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        return {
            name.removesuffix(".parquet"): pq.read_metadata(io.BytesIO(archive.read(name))).num_rows
            for name in archive.namelist()
            if name.endswith(".parquet")
        }


def card_config(name: str, features: Features, splits: Iterable[str], is_default: bool) -> dict[str, Any]:
    """
    Return the entry of a card's `configs` by which `load_dataset` reads a configuration from archives.

    Args:
        name (`str`): The configuration.
        features (`Features`): Its columns.
        splits (`Iterable[str]`): Those there are, `SPLIT-*.zip` in `FOLDER` each.
        is_default (`bool`): Whether `load_dataset` takes it where it is given no name.
    """
    return {
        "config_name": name,
        **({"default": True} if is_default else {}),
        "metadata_filenames": [f"{name}.parquet"],
        "data_files": [{"split": split, "path": f"{FOLDER}/{split}-*.zip"} for split in splits],
        "features": features._to_yaml_list(),
    }


def _stored_name(key: str, feature: Any) -> str:
    """The column that `datasets` makes the column `key` of."""
    if isinstance(feature, datasets.Image):
        return f"{key}_file_name"
    return f"{key}_file_names" if isinstance(feature, List) and isinstance(feature.feature, datasets.Image) else key


def _stored_feature(feature: Any) -> Any:
    """A feature as it is stored: names of files in place of images."""
    if isinstance(feature, datasets.Image):
        return Value("string")
    if isinstance(feature, List):
        return List(_stored_feature(feature.feature), length=feature.length)
    if isinstance(feature, dict):
        return {_stored_name(key, item): _stored_feature(item) for key, item in feature.items()}
    return feature


def _stored(value: Any, feature: Any, add: Callable[[dict[str, Any]], str]) -> Any:
    """A value of a feature as it is stored."""
    if value is None or isinstance(feature, Value):
        return value
    if isinstance(feature, datasets.Image):
        return add(value)
    if isinstance(feature, List):
        return [_stored(item, feature.feature, add) for item in value]
    return {_stored_name(key, item): _stored(value[key], item, add) for key, item in feature.items()}


def _restored(value: Any, feature: Any, read: Callable[[str], dict[str, Any]]) -> Any:
    """The inverse of [`_stored`]."""
    if value is None or isinstance(feature, Value):
        return value
    if isinstance(feature, datasets.Image):
        return read(value)
    if isinstance(feature, List):
        return [_restored(item, feature.feature, read) for item in value]
    return {key: _restored(value[_stored_name(key, item)], item, read) for key, item in feature.items()}
