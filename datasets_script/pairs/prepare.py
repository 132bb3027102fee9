"""Write a dataset of pairs as a folder of archives, in every form that a trainer takes."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard

from evaluate_metrics.functional.versions import versions

from ..utils.errors import UserError
from ..utils.files import replacing_folder, write_json
from ..vlm.conventions import MEANINGS
from .archives import FOLDER, PAIRS_PER_ARCHIVE, ArchiveWriter, card_config
from .builder import PairsConfig, check_config
from .configurations import CONFIGURATIONS, configurations_table
from .storage import check_shards, find_shards, read_rows, split_of


_RUN_FILES = ("run.json", "rejected.jsonl", "contact_sheet.png")


def prepare_pairs_folder(
    source: Path, out: Path, configs: Sequence[str], num_proc: int | None = None, **options: Any
) -> dict[str, dict[str, int]]:
    """
    Write configurations of a dataset of pairs as a folder of archives, which hold each image once, under the card of
    the dataset; whole or not at all.

    Args:
        source (`Path`): A folder written by `artiagent synthesize`.
        out (`Path`): The folder; must not exist.
        configs (`Sequence[str]`): Those of `ArtiAgentPairs`; `load_dataset(out)` gives the first.
        num_proc (`int`, *optional*): Processes that write.
        options: Further fields of [`PairsConfig`].

    Returns:
        `dict[str, dict[str, int]]`: The rows of each split of each configuration.

    Raises:
        UserError: the source is no folder of a completed run, holds no pair, or has lost its card.
        FileExistsError: `out` exists.
    """
    if not source.is_dir():
        raise UserError(f"source must be a folder written by `artiagent synthesize`, got '{source}'")
    if (source / "run.json").exists() and not (source / "README.md").exists():
        raise UserError(
            f"source '{source}' has no README.md, the card that the prepared set carries on, with the licence of its "
            "photographs: the command that made the run writes it again"
        )
    chosen = [PairsConfig(name=name, source=str(source), **options) for name in configs]
    for config in chosen:
        check_config(config)
    files = find_shards(source)
    check_shards(files)
    with _whole_folder(out, options) as folder:
        (folder / FOLDER).mkdir()
        parts = _write_parts(files, folder / FOLDER, chosen, num_proc)
        if not parts:
            raise UserError(f"source '{source}' holds no pair")
        rows = _name_parts(parts, folder / FOLDER)
        card = DatasetCard.load(source / "README.md")
        card.data.configs = [
            card_config(config.name, config.features, rows, is_default=config is chosen[0]) for config in chosen
        ]
        card.text += _configs_text(configs, chosen[0])
        card.save(folder / "README.md")
        for name in _RUN_FILES:
            if (source / name).exists():
                shutil.copyfile(source / name, folder / name)
    return {name: {split: counts[name] for split, counts in rows.items()} for name in configs}


@dataclass(frozen=True)
class _Part:
    """An archive under a name of its own, and how many rows each configuration has in it."""

    path: Path
    split: str
    rows: Mapping[str, int]


def _write_parts(
    files: Sequence[str], folder: Path, configs: Sequence[PairsConfig], num_proc: int | None
) -> list[_Part]:
    """The archives of all files, in their order."""
    tasks = [(file, str(folder / f"{index:05d}"), configs) for index, file in enumerate(files)]
    if num_proc is None or num_proc == 1:
        return [part for task in tasks for part in _write_file(*task)]
    with ProcessPoolExecutor(num_proc) as pool:
        return [part for parts in pool.map(_write_file, *zip(*tasks, strict=True)) for part in parts]


def _write_file(file: str, stem: str, configs: Sequence[PairsConfig]) -> list[_Part]:
    """The archives of one file."""
    waiting: dict[str, list[dict[str, Any]]] = defaultdict(list)
    parts: list[_Part] = []

    def write(split: str) -> None:
        path = Path(f"{stem}-{len(parts):05d}.zip")
        parts.append(_Part(path, split, _write_archive(path, waiting.pop(split), configs)))

    for pair in read_rows([file]):
        split = split_of(pair["source_id"], configs[0].test_share, configs[0].seed)
        waiting[split].append(pair)
        if len(waiting[split]) == PAIRS_PER_ARCHIVE:
            write(split)
    for split in list(waiting):
        write(split)
    return parts


def _write_archive(path: Path, pairs: Iterable[dict[str, Any]], configs: Sequence[PairsConfig]) -> dict[str, int]:
    with ArchiveWriter(path, {config.name: config.features for config in configs}) as archive:
        for pair in pairs:
            for config in configs:
                for row in config.rows(pair):
                    archive.write(config.name, row)
        return archive.count_rows()


def _name_parts(parts: Sequence[_Part], folder: Path) -> dict[str, Counter[str]]:
    """Gives archives the names `datasets` gives its files, and returns the rows of each split, `train` first."""
    rows: dict[str, Counter[str]] = {}
    for split in sorted({part.split for part in parts}, reverse=True):
        own = [part for part in parts if part.split == split]
        rows[split] = Counter()
        for index, part in enumerate(own):
            part.path.rename(folder / f"{split}-{index:05d}-of-{len(own):05d}.zip")
            rows[split].update(part.rows)
    return rows


def _configs_text(configs: Sequence[str], settings: PairsConfig) -> str:
    """What the card of a run does not tell: the configurations, and how boxes are written."""
    with_boxes = [f"`{item.name}`" for item in CONFIGURATIONS if item.has_boxes and item.name in configs]
    limits = f", `min_pixels` {settings.min_pixels} and `max_pixels` {settings.max_pixels}"
    boxes = (
        f"\nBoxes in {' and '.join(with_boxes)} are x_min, y_min, x_max, y_max, maxima exclusive, in the convention "
        f"`{settings.coordinates}`: {MEANINGS[settings.coordinates]}"
        f"{limits if settings.coordinates == 'qwen2.5' else ''}.\n"
    )
    return (
        f"\n## Configurations\n\n{configurations_table(configs)}\nEach archive holds the images of some pairs once, "
        "as files, and for each configuration a Parquet file whose rows name them. `load_dataset` of datasets 4.0 or "
        f"later reads both.\n{boxes if with_boxes else ''}"
    )


@contextmanager
def _whole_folder(out: Path, options: Mapping[str, Any]) -> Iterator[Path]:
    """
    Gives a folder to fill, which becomes `out` once the block has succeeded, with a record of how it was made; the
    builders' `cache` and locks are left out.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists already")
    with replacing_folder(out) as folder:
        yield folder
        shutil.rmtree(folder / "cache", ignore_errors=True)
        for lock in folder.rglob("*.lock"):
            lock.unlink()
        write_json(folder / "prepared.json", {"options": dict(options), "versions": versions("datasets", "pyarrow")})
