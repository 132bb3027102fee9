"""Preparing a data set: in the cache under its public name, or as a folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import DatasetCard

from evaluate_metrics.functional.intervals import versions

from ..coordinates import MEANINGS
from ..errors import UserError
from ..files import replacing_folder, write_json
from .builder import SKIPPED_FILE
from .card import write_card
from .registry import PAIRS, SCHEMA_HASH, get_benchmark, get_builder


_RUN_FILES = ("run.json", "rejected.jsonl", "contact_sheet.png")
_CONFIGS = {
    "pairs": "a pair, with the columns above",
    "images": "an image, clean or flawed: `image`, `has_artifact`, `regions`, as benchmarks have them",
    "vqa": "a conversation about an image: `id`, `images`, `messages`",
    "masks": "an image: `image`, `mask` of all flaws, `mask_<type>`",
    "instructions": "an image and a question of `artiagent predict` with the right answer: columns as of `vqa`",
    "comparisons": "a pair, which of its images is flawed and why: columns as of `vqa`, two images",
}
_WITH_BOXES = ("vqa", "instructions")


def prepare(
    name: str, source: str, config_name: str | None = None, num_proc: int | None = None, **options: Any
) -> datasets.GeneratorBasedBuilder:
    """
    Prepares a data set under its public name in the cache of `datasets`, replacing what was prepared before. From then
    on `load_dataset(name)` gives it, here and in other processes, without this package.

    Args:
        name (`str`): One of `MODULES`.
        source (`str`): Folder with the published files.
        config_name (`str`, *optional*): Of a data set that has several.
        num_proc (`int`, *optional*): Processes that write.
        options: Further fields of the builder's configuration, such as `splits` and `allow_partial`.

    Returns:
        `datasets.GeneratorBasedBuilder`: With `info` and, of a benchmark, `surveys`.

    Raises:
        BenchmarkError: the source is missing or not as published.
    """
    builder = get_builder(name)(dataset_name=name, config_name=config_name, source=source, **options)
    folder = cache_folder(name, builder.config.name)
    builder.download_and_prepare(str(folder), download_mode="force_redownload", num_proc=num_proc)
    return builder


def cache_folder(name: str, config_name: str = "default") -> Path:
    """
    Where `load_dataset(name)` looks for what was prepared: the configuration's name stands alone there, while a
    builder of its own accord adds its options.
    """
    version = str(get_builder(name).VERSION)
    return Path(datasets.config.HF_DATASETS_CACHE, name, config_name, version, SCHEMA_HASH)


def prepare_folder(
    name: str, source: str, out: Path, num_proc: int | None = None, **options: Any
) -> datasets.GeneratorBasedBuilder:
    """
    Writes a benchmark as a folder of Parquet files with a card, which `load_dataset` reads and which can be pushed to
    the Hub as it is; whole or not at all.

    Args:
        out (`Path`): The folder; must not exist. Other arguments as in [`prepare`].

    Raises:
        BenchmarkError: the source is missing or not as published.
        FileExistsError: `out` exists.
    """
    with _whole_folder(out, options) as folder:
        builder = get_builder(name)(cache_dir=str(folder / "cache"), dataset_name=name, source=source, **options)
        builder.download_and_prepare(str(folder / "data"), file_format="parquet", num_proc=num_proc)
        (folder / "data" / SKIPPED_FILE).replace(folder / SKIPPED_FILE)
        write_card(folder, get_benchmark(name), builder.surveys)
    return builder


def prepare_pairs_folder(
    source: Path, out: Path, configs: Sequence[str], num_proc: int | None = None, **options: Any
) -> dict[str, datasets.SplitDict]:
    """
    Writes configurations of a set of pairs as a folder of Parquet files under the card of the set; whole or not at
    all.

    Args:
        source (`Path`): A folder written by `artiagent synthesize`.
        out (`Path`): The folder; must not exist.
        configs (`Sequence[str]`): Those of `ArtiAgentPairs`; `load_dataset(out)` gives the first.
        num_proc (`int`, *optional*): Processes that write.
        options: Further fields of [`PairsConfig`].

    Returns:
        `dict[str, datasets.SplitDict]`: The splits of each configuration.

    Raises:
        UserError: the source is no folder of a completed run, or has lost its card.
        FileExistsError: `out` exists.
    """
    if not source.is_dir():
        raise UserError(f"source must be a folder written by `artiagent synthesize`, got '{source}'")
    if (source / "run.json").exists() and not (source / "README.md").exists():
        raise UserError(
            f"source '{source}' has no README.md, the card that the prepared set carries on, with the licence of its "
            "photographs: the command that made the run writes it again"
        )
    splits = {}
    with _whole_folder(out, options) as folder:
        for config in configs:
            cache = str(folder / "cache")
            builder = get_builder(PAIRS)(cache_dir=cache, config_name=config, source=str(source), **options)
            builder.download_and_prepare(str(folder / config), file_format="parquet", num_proc=num_proc)
            (folder / config / "dataset_info.json").unlink()
            splits[config] = builder.info.splits
        card = DatasetCard.load(source / "README.md")
        card.data.configs = [
            {
                "config_name": config,
                "data_files": [{"split": split, "path": f"{config}/*-{split}*.parquet"} for split in splits[config]],
                **({"default": True} if config == configs[0] else {}),
            }
            for config in configs
        ]
        card.text += _configs_text(configs, builder.config)
        card.save(folder / "README.md")
        for name in _RUN_FILES:
            if (source / name).exists():
                shutil.copyfile(source / name, folder / name)
    return splits


def _configs_text(configs: Sequence[str], settings: datasets.BuilderConfig) -> str:
    """What the card of a run does not tell: the configurations, and how boxes are written."""
    with_boxes = " and ".join(f"`{name}`" for name in _WITH_BOXES if name in configs)
    rows = "\n".join(f"| `{name}` | {_CONFIGS[name]} |" for name in configs)
    limits = f", `min_pixels` {settings.min_pixels} and `max_pixels` {settings.max_pixels}"
    boxes = (
        f"\nBoxes in {with_boxes} are x_min, y_min, x_max, y_max, maxima exclusive, in the convention "
        f"`{settings.coordinates}`: {MEANINGS[settings.coordinates]}"
        f"{limits if settings.coordinates == 'qwen2.5' else ''}.\n"
    )
    return f"\n## Configurations\n\n| name | a row is |\n|---|---|\n{rows}\n{boxes if with_boxes else ''}"


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
