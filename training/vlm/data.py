"""
Conversations that vision-language models are trained on, and the facts about them that a model's record keeps.

| kind | made from | a row holds |
|---|---|---|
| `vqa` | pairs | an image, with several questions about it (ArtiAgent's form) |
| `instructions` | pairs | an image and one question of `artiagent predict` |
| `comparisons` | pairs | two images and the questions which one has an artifact and what is wrong with it |
| `synartifact_classification` | SynArtifact-1K | an image and the question which kinds of artifacts it has |
| `synartifact_detection` | SynArtifact-1K | an image and the paper's four questions |
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import DatasetCard, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from datasets_script.benchmarks.base import BenchmarkError
from datasets_script.benchmarks.loading import load_benchmark
from datasets_script.benchmarks.prepare import cache_folder
from datasets_script.benchmarks.registry import get_benchmark
from datasets_script.pairs.builder import ArtiAgentPairs, image_cache
from datasets_script.pairs.configurations import IMAGE_FOLDERS
from datasets_script.pairs.image_files import ImageFiles
from datasets_script.pairs.storage import find_shards
from datasets_script.pairs.views.synartifact import classification_row, detection_row
from datasets_script.pairs.views.vqa import FEATURES
from datasets_script.schema.pair_id import pair_id_of
from datasets_script.schema.run_record import RUN_FILE, RunRecord
from datasets_script.utils.errors import UserError
from datasets_script.vlm.conventions import BoxFormat


PAIR_CONVERSATIONS = ("vqa", "instructions", "comparisons")
SYNARTIFACT_CONVERSATIONS = ("synartifact_classification", "synartifact_detection")
CONVERSATIONS = (*PAIR_CONVERSATIONS, *SYNARTIFACT_CONVERSATIONS)

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_SYNARTIFACT = "synartifact"
_SPLITS = ("train", "test")
_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")
# Files to download of a dataset on the Hub: no configuration but the pairs.
_HUB_FILES = (
    *("README.md", RUN_FILE, "prepared.json", "data/*.parquet", "pairs-*.parquet", "pairs/*.parquet"),
    *(f"{folder}/*.png" for folder in IMAGE_FOLDERS),
)


@dataclass(frozen=True)
class _Files:
    """
    Files of a source.

    Attributes:
        public_name (`str`): Name of the source on the Hub or in the cache; empty for other files.
        splits (`Mapping[str, list[str]]`): Paths of the files of each split.
        opened (`str`): Source as given to [`load_benchmark`].
        revision (`str`, *optional*): Commit on the Hub.
    """

    public_name: str
    splits: Mapping[str, list[str]]
    opened: str
    revision: str | None = None

    def all(self) -> list[str]:
        return [path for split in self.splits.values() for path in split]

    @property
    def name(self) -> str:
        """Return a name of the source that holds no path of this machine."""
        return self.public_name or ", ".join(folder.name for folder in self.folders())

    def folders(self) -> list[Path]:
        """Return the folders that may hold the run's record and a card: those of the files, or the folders above."""
        parents = [Path(path).parent for path in self.all()]
        return list(dict.fromkeys(one if (one / "prepared.json").exists() else one.parent for one in parents))


@dataclass(frozen=True, eq=False)
class Conversations:
    """
    Conversations to train on. They are kept in the cache of `datasets`, and made again once the source has changed.
    Rows hold texts and the paths of their images, of which the cache stores each once.

    Args:
        source (`str` or sequence of `str`): For conversations about pairs, a folder written by `artiagent synthesize`
            or by `artiagent prepare artiagent --out`, the id of either as a dataset on the Hub, Parquet files of
            pairs, or a pattern for such files. For conversations from SynArtifact, `"synartifact"` as prepared in the
            cache, a folder written by `artiagent prepare synartifact --out`, or the id of such a dataset on the Hub.
        kinds (`Sequence[str]`): Kinds from [`CONVERSATIONS`], either about pairs or from SynArtifact.
        box_format (`BoxFormat`): Format of the boxes in the text. The format that a folder was prepared with does not
            matter, as conversations are made from its pairs.
        test_share (`float`, *optional*, defaults to 0.0): Share of the photos to hold out for a split `test`. It must
            be 0 for a source that has such a split.
        seed (`int`, *optional*, defaults to 0): Seed of the questions, the orders and the photos of the test split.
        num_pairs (`int`, *optional*): Number of pairs to train on: the first of the train split, in the order of the
            source. Defaults to all. The test split does not depend on it, so that different numbers can be compared.
        revision (`str`, *optional*): Branch, tag or commit of a dataset on the Hub.

    Raises:
        UserError: `kinds` or `num_pairs` is invalid. The methods also raise it if the source does not exist, cannot be
            read or gives no conversation.
    """

    source: Source
    kinds: Sequence[str]
    box_format: BoxFormat
    test_share: float = 0.0
    seed: int = 0
    num_pairs: int | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        kinds = list(self.kinds)
        known = ", ".join(CONVERSATIONS)
        if not kinds or len(set(kinds)) < len(kinds):
            raise UserError(f"`kinds` must be one or more of {known}, each once, got {kinds}")
        if unknown := [kind for kind in kinds if kind not in CONVERSATIONS]:
            raise UserError(f"`kinds` must be among {known}, got '{unknown[0]}'")
        if not (set(kinds) <= set(PAIR_CONVERSATIONS) or set(kinds) <= set(SYNARTIFACT_CONVERSATIONS)):
            raise UserError(
                f"`kinds` must be of one source: {', '.join(PAIR_CONVERSATIONS)} are made from pairs and "
                f"{', '.join(SYNARTIFACT_CONVERSATIONS)} from SynArtifact-1K, got {kinds}"
            )
        if self.num_pairs is not None and (self.num_pairs < 1 or not self.of_pairs):
            raise UserError(f"`num_pairs` must be at least 1, and for conversations about pairs, got {self.num_pairs}")

    @property
    def of_pairs(self) -> bool:
        """Return whether the conversations are about pairs."""
        return set(self.kinds) <= set(PAIR_CONVERSATIONS)

    def load(self) -> datasets.DatasetDict:
        """
        Load the conversations, with rows of all kinds shuffled by `seed`. Images are decoded when a row is read.

        Returns:
            `datasets.DatasetDict`: Split `train`, and `test` if there is one, with columns `images` and `messages`.
        """
        mixed = datasets.DatasetDict()
        for split, kinds in self._made.items():
            rows = datasets.concatenate_datasets(list(kinds.values())).select_columns(["images", "messages"])
            mixed[split] = rows.shuffle(seed=self.seed)
        return mixed

    def record(self) -> dict[str, Any]:
        """
        Return what the record of a training states about its data.

        Returns:
            `dict`: JSON-serialisable, without paths of this machine: `source` (its name), `revision` (commit on the
                Hub), `fingerprint` (hash of the files' bytes), `pairs` (number by split; for pairs only), `rows`
                (number by split and kind), `coordinates` with `min_pixels` and `max_pixels` if boxes depend on them,
                `test_share`, `seed`, `num_pairs`, `licenses` (as stated in the source's cards) and `runs` (the
                [`~RunRecord.origin`] of each run that made the pairs, if known).
        """
        files, made = self._files, self._made
        pairs = {split: len(_pair_ids(next(iter(kinds.values())))) for split, kinds in made.items()}
        return {
            "source": files.name,
            "revision": files.revision,
            "fingerprint": f"sha256:{_hash(files.all())}",
            **({"pairs": pairs} if self.of_pairs else {}),
            "rows": {split: {kind: len(rows) for kind, rows in kinds.items()} for split, kinds in made.items()},
            **self.box_format.record(),
            "test_share": self.test_share,
            "seed": self.seed,
            "num_pairs": self.num_pairs,
            "licenses": _licenses(self, files),
            "runs": [_without_paths(RunRecord.read(folder).origin) for folder in _run_folders(files)],
        }

    @cached_property
    def _files(self) -> _Files:
        return _find(self)

    @cached_property
    def _made(self) -> dict[str, dict[str, datasets.Dataset]]:
        return _make(self, self._files)


def _find(wanted: Conversations) -> _Files:
    source = wanted.source
    if not isinstance(source, str | os.PathLike):
        return _Files("", {"train": find_shards(source)}, "")
    folder, public_name, commit = Path(source), "", None
    if not folder.exists() and _HUB_ID.fullmatch(str(source)):
        folder, public_name = _download(str(source), wanted.revision), str(source)
        commit = folder.name
    if wanted.of_pairs:
        return _Files(public_name, _find_pairs(folder), str(folder), commit)
    if str(source) == _SYNARTIFACT and not folder.exists():
        cached = _split_files(cache_folder(_SYNARTIFACT), f"{_SYNARTIFACT}-{{split}}*.arrow")
        return _Files(_SYNARTIFACT, cached, _SYNARTIFACT)
    return _Files(public_name, _find_synartifact(folder), str(folder), commit)


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
    if prepared := _split_files(folder, "pairs-{split}.parquet") or _split_files(
        folder / "pairs", "*-{split}*.parquet"
    ):
        return prepared
    if (folder / "prepared.json").exists():
        raise UserError(
            f"`source` must hold pairs to make conversations from, got '{folder}' with no configuration 'pairs'; "
            "prepare it again with `artiagent prepare artiagent --out`, without --config"
        )
    return {"train": find_shards(folder)}


def _find_synartifact(folder: Path) -> dict[str, list[str]]:
    splits = _split_files(folder / "data", f"{_SYNARTIFACT}-{{split}}*.parquet")
    if not splits:
        raise UserError(
            f"`source` must be '{_SYNARTIFACT}' or a folder written by `artiagent prepare {_SYNARTIFACT} --out`, for "
            f"conversations {', '.join(SYNARTIFACT_CONVERSATIONS)}; got '{folder}'"
        )
    return splits


def _split_files(folder: Path, pattern: str) -> dict[str, list[str]]:
    found = {split: sorted(map(str, folder.absolute().glob(pattern.format(split=split)))) for split in _SPLITS}
    return {split: files for split, files in found.items() if files}


def _make(wanted: Conversations, files: _Files) -> dict[str, dict[str, datasets.Dataset]]:
    """Make the rows, by split and kind of conversation."""
    if wanted.test_share and ("test" in files.splits or not wanted.of_pairs):
        raise UserError(
            f"`test_share` must be 0 unless pairs have no split 'test', got {wanted.test_share} for '{files.name}'"
        )
    make = _make_of_pairs if wanted.of_pairs else _make_of_synartifact
    made: dict[str, dict[str, datasets.Dataset]] = {}
    for kind in wanted.kinds:
        for split, rows in make(wanted, files, kind).items():
            made.setdefault(split, {})[kind] = rows
    for split in ("train", "test") if wanted.test_share else {"train": [], **files.splits}:
        if not any(map(len, made.get(split, {}).values())):
            raise UserError(
                f"`source` must give conversations, got no conversation for the split '{split}' of '{files.name}'"
            )
    return made


def _make_of_pairs(wanted: Conversations, files: _Files, kind: str) -> dict[str, datasets.Dataset]:
    made: dict[str, datasets.Dataset] = {}
    for split, shards in files.splits.items():
        builder = ArtiAgentPairs(
            config_name=kind,
            source=shards,
            coordinates=wanted.box_format.coordinates,
            min_pixels=wanted.box_format.min_pixels,
            max_pixels=wanted.box_format.max_pixels,
            seed=wanted.seed,
            test_share=wanted.test_share,
        )
        builder.download_and_prepare()
        # A split without rows has no file to read.
        rows = {name: builder.as_dataset(name) for name, info in builder.info.splits.items() if info.num_examples}
        if wanted.test_share:
            made |= rows
        elif rows:
            made[split] = rows["train"]
    if wanted.num_pairs is not None and "train" in made:
        made["train"] = _first_pairs(made["train"], wanted.num_pairs)
    return made


def _first_pairs(rows: datasets.Dataset, count: int) -> datasets.Dataset:
    pairs = list(_pair_ids(rows).values())
    if len(pairs) < count:
        raise UserError(f"`num_pairs` must be at most the {len(pairs)} pairs of the train split, got {count}")
    return rows.select(range(sum(pairs[:count])))


def _pair_ids(rows: datasets.Dataset) -> dict[str, int]:
    """Count the rows of each pair, in the order of the pairs. The rows of a pair are adjacent."""
    counts: dict[str, int] = {}
    for name in rows["id"]:
        pair = pair_id_of(name)
        counts[pair] = counts.get(pair, 0) + 1
    return counts


def _make_of_synartifact(wanted: Conversations, files: _Files, kind: str) -> dict[str, datasets.Dataset]:
    if not files.splits:
        # Its error says how to prepare the benchmark.
        _check_readable(files.opened)
    return {
        split: datasets.Dataset.from_generator(
            _synartifact_rows,
            features=FEATURES,
            gen_kwargs={
                "opened": files.opened,
                "split_name": split,
                "kind": kind,
                "box_format": wanted.box_format,
                # They are hashed into the cache's name, so that a changed source is read again.
                "stamps": tuple((path, os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in paths),
            },
        )
        for split, paths in files.splits.items()
    }


def _check_readable(opened: str) -> None:
    try:
        next(load_benchmark(opened), None)
    except BenchmarkError as error:
        raise UserError(str(error)) from error


def _synartifact_rows(
    opened: str, split_name: str, kind: str, box_format: BoxFormat, stamps: tuple[tuple[str, int, int], ...]
) -> Iterator[dict[str, Any]]:
    make = classification_row if kind == "synartifact_classification" else detection_row
    stored = ImageFiles(image_cache())
    for image in load_benchmark(opened, split_name):
        if row := make(image, box_format):
            # `datasets` stores only the path of an image that has one.
            yield row | {"images": [{"bytes": image.image, "path": stored.add(image.image)}]}


def _hash(paths: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _run_folders(files: _Files) -> list[Path]:
    return [folder for folder in files.folders() if (folder / RUN_FILE).is_file()]


def _without_paths(value: Any) -> Any:
    """Replace absolute paths by the names of their files or folders."""
    if isinstance(value, Mapping):
        return {key: _without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_paths(item) for item in value]
    return Path(value).name if isinstance(value, str) and os.path.isabs(value) else value


def _licenses(wanted: Conversations, files: _Files) -> list[str]:
    """Return the licences that the cards of the source state. Their owners may have edited the cards."""
    cards = [folder / "README.md" for folder in files.folders()]
    stated = [DatasetCard.load(card).data.license for card in cards if card.is_file()]
    if not stated and not wanted.of_pairs:
        stated = [get_benchmark(_SYNARTIFACT).license]
    return sorted({str(license) for license in stated if license})
