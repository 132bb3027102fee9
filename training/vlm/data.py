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

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets

from datasets_script.benchmarks.base import BenchmarkError
from datasets_script.benchmarks.loading import load_benchmark
from datasets_script.benchmarks.prepare import cache_folder
from datasets_script.benchmarks.registry import get_benchmark
from datasets_script.pairs.builder import ArtiAgentPairs, image_cache
from datasets_script.pairs.image_files import ImageFiles
from datasets_script.pairs.storage import find_shards
from datasets_script.pairs.views.synartifact import classification_row, detection_row
from datasets_script.pairs.views.vqa import FEATURES
from datasets_script.schema.pair_id import pair_id_of
from datasets_script.utils.errors import UserError
from datasets_script.vlm.conventions import BoxFormat
from training.source_files import SourceFiles, find_pair_files, hash_files, locate, split_files, stamps


PAIR_CONVERSATIONS = ("vqa", "instructions", "comparisons")
SYNARTIFACT_CONVERSATIONS = ("synartifact_classification", "synartifact_detection")
CONVERSATIONS = (*PAIR_CONVERSATIONS, *SYNARTIFACT_CONVERSATIONS)

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_SYNARTIFACT = "synartifact"


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
            "fingerprint": f"sha256:{hash_files(files.all())}",
            **({"pairs": pairs} if self.of_pairs else {}),
            "rows": {split: {kind: len(rows) for kind, rows in kinds.items()} for split, kinds in made.items()},
            **self.box_format.record(),
            "test_share": self.test_share,
            "seed": self.seed,
            "num_pairs": self.num_pairs,
            "licenses": _licenses(self, files),
            "runs": files.run_origins(),
        }

    @cached_property
    def _files(self) -> SourceFiles:
        return _find(self)

    @cached_property
    def _made(self) -> dict[str, dict[str, datasets.Dataset]]:
        return _make(self, self._files)


def _find(wanted: Conversations) -> SourceFiles:
    source = wanted.source
    if not isinstance(source, str | os.PathLike):
        return SourceFiles("", {"train": find_shards(source)}, "")
    if wanted.of_pairs:
        return find_pair_files(source, wanted.revision)
    folder, public_name, commit = locate(source, wanted.revision)
    if str(source) == _SYNARTIFACT and not folder.exists():
        cached = split_files(cache_folder(_SYNARTIFACT), f"{_SYNARTIFACT}-{{split}}*.arrow")
        return SourceFiles(_SYNARTIFACT, cached, _SYNARTIFACT)
    return SourceFiles(public_name, _find_synartifact(folder), str(folder), commit)


def _find_synartifact(folder: Path) -> dict[str, list[str]]:
    splits = split_files(folder / "data", f"{_SYNARTIFACT}-{{split}}*.parquet")
    if not splits:
        raise UserError(
            f"`source` must be '{_SYNARTIFACT}' or a folder written by `artiagent prepare {_SYNARTIFACT} --out`, for "
            f"conversations {', '.join(SYNARTIFACT_CONVERSATIONS)}; got '{folder}'"
        )
    return splits


def _make(wanted: Conversations, files: SourceFiles) -> dict[str, dict[str, datasets.Dataset]]:
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


def _make_of_pairs(wanted: Conversations, files: SourceFiles, kind: str) -> dict[str, datasets.Dataset]:
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


def _make_of_synartifact(wanted: Conversations, files: SourceFiles, kind: str) -> dict[str, datasets.Dataset]:
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
                "stamps": stamps(paths),
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


def _licenses(wanted: Conversations, files: SourceFiles) -> list[str]:
    """Return the licences that the cards of the source state. Their owners may have edited the cards."""
    stated = files.stated_licenses()
    return stated or ([] if wanted.of_pairs else [get_benchmark(_SYNARTIFACT).license])
