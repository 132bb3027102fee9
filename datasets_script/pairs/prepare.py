"""Conversion of a dataset of pairs to a folder of images and rows, in the configurations that trainers read."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import DatasetCard

from ..edits.pair_rows import PairEdits
from ..schema.run_record import RUN_FILE
from ..utils.data_cards import write_data_card
from ..utils.errors import UserError
from ..vlm.conventions import find_convention
from .builder import PairsConfig, check_config
from .configurations import CONFIGURATIONS, HALVES, MASKS, SOURCES, configurations_table
from .edited import edits_in
from .folders import whole_folder
from .named_images import card_config, image_name, name_images, stored_columns
from .storage import check_shards, find_shards, read_rows, split_of


_RUN_FILES = (RUN_FILE, "rejected.jsonl", "contact_sheet.png")


def prepare_pairs_folder(
    source: Path, out: Path, configs: Sequence[str], num_proc: int | None = None, **options: Any
) -> dict[str, dict[str, int]]:
    """
    Write configurations of a dataset of pairs to a folder, atomically. The folder holds each image once, as a file, a
    Parquet file of rows that refer to the images for each configuration and split, and the card of the dataset. Edits
    of the layer beside the data are applied, and listed in `prepared.json`.

    Args:
        source (`Path`): A folder written by `artiagent synthesize`.
        out (`Path`): The folder to write; must not exist.
        configs (`Sequence[str]`): Names of configurations of `ArtiAgentPairs`; `load_dataset(out)` reads the first.
        num_proc (`int`, *optional*): Number of processes that write; 1 by default.
        options: Further fields of [`PairsConfig`].

    Returns:
        `dict[str, dict[str, int]]`: Number of rows by configuration and split.

    Raises:
        UserError: `source` does not hold a completed run, holds no pair, has no card, or a line of its layer of edits
            is none.
        FileExistsError: `out` exists.
    """
    if not source.is_dir():
        raise UserError(f"`source` must be a folder written by `artiagent synthesize`, got '{source}'")
    if (source / RUN_FILE).exists() and not (source / "README.md").exists():
        raise UserError(
            f"`source` must hold README.md, the card with the licence of its photos, got '{source}' without it; run "
            "the command that made the dataset to write it again"
        )
    chosen = [PairsConfig(name=name, source=str(source), **options) for name in configs]
    for config in chosen:
        check_config(config)
    files = find_shards(source)
    check_shards(files)
    planned = chosen[0].planned_edits(files)
    recorded = options | ({"only": asdict(options["only"])} if "only" in options else {})
    with whole_folder(out, recorded, planned.report.as_dict()) as folder:
        edits = [edits_in(file, planned) for file in files]
        rows = _write_rows(files, edits, folder, chosen, num_proc)
        if not rows:
            raise UserError(f"`source` must hold at least one pair, got none in '{source}'")
        card = DatasetCard.load(source / "README.md")
        shown = {item.name: item.shows for item in CONFIGURATIONS}
        card.data.configs = [
            card_config(name, config.features, rows[name], shown[name], is_default=config is chosen[0])
            for name, config in zip(configs, chosen, strict=True)
        ]
        card.text += _configs_text(configs, chosen[0]) + planned.report.as_section()
        write_data_card(folder, str(card))
        for name in _RUN_FILES:
            if (source / name).exists():
                shutil.copyfile(source / name, folder / name)
    return rows


@dataclass(frozen=True)
class _Part:
    """Rows by configuration: those of one source file that belong to one split."""

    split: str
    tables: dict[str, pa.Table]


def _write_rows(
    files: Sequence[str],
    edits: Sequence[PairEdits],
    folder: Path,
    configs: Sequence[PairsConfig],
    num_proc: int | None,
) -> dict[str, dict[str, int]]:
    """Write images, and rows in the order of the files; return the number of rows by configuration and split."""
    schemas = {config.name: _schema(config) for config in configs}
    writers: dict[tuple[str, str], pq.ParquetWriter] = {}
    counts: Counter[tuple[str, str]] = Counter()
    with ExitStack() as stack:
        for part in _write_parts(files, edits, folder, configs, num_proc):
            for name, table in part.tables.items():
                key = (name, part.split)
                if key not in writers:
                    path = folder / f"{name}-{part.split}.parquet"
                    writers[key] = stack.enter_context(pq.ParquetWriter(path, schemas[name]))
                writers[key].write_table(table)
                counts[key] += table.num_rows
    # In reverse order the train split comes first.
    splits = sorted({split for _, split in counts}, reverse=True)
    return {name: {split: counts[name, split] for split in splits} for name in schemas} if splits else {}


def _write_parts(
    files: Sequence[str],
    edits: Sequence[PairEdits],
    folder: Path,
    configs: Sequence[PairsConfig],
    num_proc: int | None,
) -> Iterator[_Part]:
    tasks = [(file, edits[index], index, folder, configs) for index, file in enumerate(files)]
    if num_proc is None or num_proc == 1:
        for task in tasks:
            yield from _write_part(*task)
    else:
        with ProcessPoolExecutor(num_proc) as pool:
            for parts in pool.map(_write_part, *zip(*tasks, strict=True)):
                yield from parts


def _write_part(file: str, edits: PairEdits, index: int, folder: Path, configs: Sequence[PairsConfig]) -> list[_Part]:
    rows: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for pair in read_rows([file], configs[0].only, edits):
        split = split_of(pair["source_id"], configs[0].test_share, configs[0].seed)
        images = _PairImages(folder, f"{split}/{index:05d}", pair)
        own = rows.setdefault(split, {config.name: [] for config in configs})
        for config in configs:
            own[config.name] += [name_images(row, config.features, images.add) for row in config.rows(pair)]
    schemas = {config.name: _schema(config) for config in configs}
    return [
        _Part(split, {name: pa.Table.from_pylist(own[name], schemas[name]) for name in own})
        for split, own in rows.items()
    ]


class _PairImages:
    """
    Writer of the images of a pair into the folders `IMAGE_FOLDERS`.

    Args:
        folder (`Path`): The prepared folder.
        place (`str`): Subfolder of `IMAGE_FOLDERS`; one per source file keeps folders small.
        pair (`dict`): A row of `PAIR_FEATURES` as stored.
    """

    def __init__(self, folder: Path, place: str, pair: Mapping[str, Any]) -> None:
        self._folder, self._place = folder, place
        self._kinds = {
            pair["source"]["bytes"]: SOURCES,
            pair["clean"]["bytes"]: HALVES,
            pair["flawed"]["bytes"]: HALVES,
        }
        self._names: dict[bytes, str] = {}

    def add(self, content: bytes) -> str:
        """Write an image, unless it exists already, and return its name."""
        if content in self._names:
            return self._names[content]
        name = self._names[content] = image_name(content, f"{self._kinds.get(content, MASKS)}/{self._place}")
        path = self._folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return name


def _schema(config: PairsConfig) -> pa.Schema:
    # `datasets` reads the features from the card, not from Parquet metadata.
    return stored_columns(config.features).arrow_schema.remove_metadata()


def _configs_text(configs: Sequence[str], settings: PairsConfig) -> str:
    """Describe the configurations and the convention of their boxes, for the card."""
    with_boxes = [f"`{item.name}`" for item in CONFIGURATIONS if item.has_boxes and item.name in configs]
    limits = f", `min_pixels` {settings.min_pixels} and `max_pixels` {settings.max_pixels}"
    boxes = (
        f"\nBoxes in {' and '.join(with_boxes)} are x_min, y_min, x_max, y_max, maxima exclusive, in the convention "
        f"`{settings.coordinates}`: {find_convention(settings.coordinates).meaning}"
        f"{limits if settings.coordinates == 'qwen2.5' else ''}.\n"
    )
    return (
        f"\n## Configurations\n\n{configurations_table(configs)}\nEach image is stored once, as a file named by the "
        "hash of its bytes; the rows of each configuration are in Parquet files that refer to the images. "
        f"`load_dataset` of datasets 4.0 or later joins both.\n{boxes if with_boxes else ''}"
    )
