"""Files of a dataset to train on: where they are, and what the record of a training states about them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from datasets_script.pairs.configurations import IMAGE_FOLDERS
from datasets_script.pairs.storage import find_shards
from datasets_script.schema.run_record import RUN_FILE, RunRecord
from datasets_script.utils.errors import UserError


_SPLITS = ("train", "test")
_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")
# Files to download of a dataset on the Hub: no configuration but the pairs.
_HUB_FILES = (
    *("README.md", RUN_FILE, "prepared.json", "data/*.parquet", "pairs-*.parquet", "pairs/*.parquet"),
    *(f"{folder}/*.png" for folder in IMAGE_FOLDERS),
)


@dataclass(frozen=True)
class SourceFiles:
    """
    Files of a source.

    Attributes:
        public_name (`str`): Name of the source on the Hub or in the cache; empty for other files.
        splits (`Mapping[str, list[str]]`): Paths of the files of each split.
        opened (`str`): Source as given to [`~datasets_script.benchmarks.loading.load_benchmark`].
        revision (`str`, *optional*): Commit on the Hub.
    """

    public_name: str
    splits: Mapping[str, list[str]]
    opened: str
    revision: str | None = None

    def all(self) -> list[str]:
        """Return the paths of the files of all splits."""
        return [path for split in self.splits.values() for path in split]

    @property
    def name(self) -> str:
        """Return a name of the source that holds no path of this machine."""
        return self.public_name or ", ".join(folder.name for folder in self.folders())

    def folders(self) -> list[Path]:
        """
        Return the folders that may hold the run's record and a card: the source, or for a pattern those of the files
        or the folders above.
        """
        if self.opened and os.path.isdir(self.opened):
            return [Path(os.path.abspath(self.opened))]
        parents = [Path(path).parent for path in self.all()]
        return list(dict.fromkeys(one if (one / "prepared.json").exists() else one.parent for one in parents))

    def run_origins(self) -> list[dict[str, Any]]:
        """Return the [`~RunRecord.origin`] of each run that made the files, if known, without paths."""
        records = [RunRecord.read(folder) for folder in self.folders() if (folder / RUN_FILE).is_file()]
        return [without_paths(record.origin) for record in records]

    def stated_licenses(self) -> list[str]:
        """Return the licences that the cards of the source state. Their owners may have edited the cards."""
        cards = [folder / "README.md" for folder in self.folders()]
        stated = [DatasetCard.load(card).data.license for card in cards if card.is_file()]
        return sorted({str(license) for license in stated if license})


def find_pair_files(source: str | os.PathLike[str], revision: str | None = None) -> SourceFiles:
    """
    Find the files of pairs.

    Args:
        source (`str`): A folder written by `artiagent synthesize` or by `artiagent prepare artiagent --out`, the id of
            either as a dataset on the Hub, or a pattern for Parquet files of pairs.
        revision (`str`, *optional*): Branch, tag or commit of a dataset on the Hub.

    Raises:
        UserError: The source does not exist, or holds no pairs.
    """
    folder, public_name, commit = locate(source, revision)
    return SourceFiles(public_name, _find_pairs(folder), str(folder), commit)


def locate(source: str | os.PathLike[str], revision: str | None = None) -> tuple[Path, str, str | None]:
    """
    Return the folder of a source, downloaded if it is a dataset on the Hub, its name there, and its commit there.

    Raises:
        UserError: A dataset on the Hub is not available.
    """
    folder = Path(source)
    if folder.exists() or not _HUB_ID.fullmatch(str(source)):
        return folder, "", None
    folder = _download(str(source), revision)
    return folder, str(source), folder.name


def split_files(folder: Path, pattern: str) -> dict[str, list[str]]:
    """Return the absolute paths of files by split: those that fit a pattern with `{split}` in it."""
    found = {split: sorted(map(str, folder.absolute().glob(pattern.format(split=split)))) for split in _SPLITS}
    return {split: files for split, files in found.items() if files}


def hash_files(paths: Sequence[str]) -> str:
    """Return the SHA-256 of the hashes of files, in their order, as hexadecimal digits."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def stamps(paths: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
    """Return path, size and time of each file. They name a cache, so that a changed source is read again."""
    return tuple((path, os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in paths)


def without_paths(value: Any) -> Any:
    """Replace absolute paths, in any depth of a JSON value, by the names of their files or folders."""
    if isinstance(value, Mapping):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    return Path(value).name if isinstance(value, str) and os.path.isabs(value) else value


def _download(name: str, revision: str | None) -> Path:
    try:
        folder = snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=list(_HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"`source` must be a folder, Parquet files or an available dataset on the Hub, got '{name}': {error}"
        ) from error
    return Path(folder)


def _find_pairs(folder: Path) -> dict[str, list[str]]:
    # Folders prepared by earlier versions have one folder of Parquet files for each configuration.
    if prepared := split_files(folder, "pairs-{split}.parquet") or split_files(folder / "pairs", "*-{split}*.parquet"):
        return prepared
    if (folder / "prepared.json").exists():
        raise UserError(
            f"`source` must hold pairs to train on, got '{folder}' with no configuration 'pairs'; "
            "prepare it again with `artiagent prepare artiagent --out`, without --config"
        )
    return {"train": find_shards(folder)}
