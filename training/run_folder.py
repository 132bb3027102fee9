"""
The folder of a training run, shared by all trainers: which recipe it belongs to and where training continues.

A trainer calls [`begin_run`] before it trains, continues from the returned checkpoint, and ends with
[`~datasets_script.schema.training_record.TrainingRecord.write`]. One that knows a part of what it records only once
things are loaded calls [`check_run`] before it loads them. A script that cannot be resumed writes its model into
[`new_model_folder`].
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets_script.utils.errors import UserError
from datasets_script.utils.files import replacing_folder, write_json


RECIPE_FILE = "recipe.json"

# Arguments that do not change what is learned: a run may be continued with other values of them.
_INCIDENTAL = ("report_to", "run_name", "dataloader_num_workers", "disable_tqdm")
_INCIDENTAL_PREFIXES = ("hub_", "logging_", "save_", "log_")

_CHECKPOINT = re.compile(r"checkpoint-\d+")


def begin_run(
    folder: Path, recipe: Mapping[str, Any], writes: bool = True, option: str = "--output_dir"
) -> Path | None:
    """
    Record which recipe a folder belongs to, and find the checkpoint to continue from.

    Args:
        folder (`Path`): Folder of the run, where the model will be saved.
        recipe (`Mapping`): Arguments of the run, JSON-serialisable. Those that only concern logging, saving and
            publishing are ignored.
        writes (`bool`, *optional*, defaults to `True`): Whether this process writes the record. One process of a
            distributed run does.
        option (`str`, *optional*, defaults to `"--output_dir"`): Name of the argument in error messages.

    Returns:
        `Path`, *optional*: The last complete checkpoint, `None` if there is none.

    Raises:
        UserError: The folder belongs to another recipe, or holds checkpoints of another program.
    """
    check_run(folder, recipe, option=option)
    if writes:
        write_json(folder / RECIPE_FILE, _learned(recipe))
    return find_checkpoint(folder)


def check_run(
    folder: Path, recipe: Mapping[str, Any], later: Collection[str] = (), option: str = "--output_dir"
) -> None:
    """
    Check that a folder is new or belongs to a recipe, as [`begin_run`] does, which is called later with all of it.

    Args:
        folder (`Path`): Folder of the run.
        recipe (`Mapping`): What is known of the arguments of [`begin_run`].
        later (`Collection[str]`, *optional*): Names of those that are not known yet.
        option (`str`, *optional*, defaults to `"--output_dir"`): Name of the argument in error messages.

    Raises:
        UserError: The folder belongs to another recipe, or holds checkpoints of another program.
    """
    path, learned = folder / RECIPE_FILE, _learned(recipe)
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        names = (before.keys() | learned.keys()) - set(later)
        if changed := sorted(n for n in names if before.get(n) != learned.get(n)):
            name = changed[0]
            raise UserError(
                f"{option} must be the folder of a run with {name} = {learned.get(name)}, got '{folder}' with "
                f"{name} = {before.get(name)}; choose another folder"
            )
    elif checkpoints(folder):
        raise UserError(
            f"{option} must be a new folder or one of this script, got '{folder}', which holds checkpoints of another "
            "program; choose another folder"
        )


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a run, complete or not, in the order of their steps."""
    # A kill while one is written leaves `checkpoint-40.incomplete`, which is none.
    found = [path for path in folder.glob("checkpoint-*") if _CHECKPOINT.fullmatch(path.name)]
    return sorted(found, key=step_of)


def find_checkpoint(folder: Path) -> Path | None:
    """Return the last complete checkpoint of a run, or `None`."""
    # The trainer writes this file last, so a checkpoint that has it is complete.
    whole = [path for path in checkpoints(folder) if (path / "trainer_state.json").exists()]
    return whole[-1] if whole else None


def step_of(checkpoint: Path) -> int:
    """Return the step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def check_new_folder(folder: Path, option: str) -> None:
    """
    Check that a folder is new or empty.

    Args:
        folder (`Path`): Folder where a model will be saved.
        option (`str`): Name of the argument in error messages.

    Raises:
        UserError: `folder` is a file, or a folder that is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{option} must be a new or empty folder, got '{folder}'; choose another or remove it")


@contextmanager
def new_model_folder(folder: Path, option: str) -> Iterator[Path]:
    """
    Yield an empty temporary folder, and move it to `folder` if the block succeeds.

    Args:
        folder (`Path`): Folder where the model will be saved.
        option (`str`): Name of the argument in error messages.

    Raises:
        UserError: `folder` is a file, or a folder that is not empty.
    """
    check_new_folder(folder, option)
    with replacing_folder(folder) as temporary:
        yield temporary


def _learned(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in recipe.items() if not _is_incidental(name)}


def _is_incidental(name: str) -> bool:
    return name in _INCIDENTAL or name.startswith(_INCIDENTAL_PREFIXES)
