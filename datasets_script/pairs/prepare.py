"""Write a data set of pairs as a folder of Parquet files, in every form a trainer takes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import DatasetCard

from evaluate_metrics.functional.versions import versions

from ..utils.errors import UserError
from ..utils.files import replacing_folder, write_json
from ..vlm.conventions import find_convention
from .builder import ArtiAgentPairs


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
            builder = ArtiAgentPairs(cache_dir=cache, config_name=config, source=str(source), **options)
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
        f"`{settings.coordinates}`: {find_convention(settings.coordinates).meaning}"
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
