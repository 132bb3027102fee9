"""
The folder of a training run, shared by all trainers: whose it is, where to continue, and what is recorded of it.

A trainer calls [`begin_run`] before it loads anything, continues from the checkpoint that it returns, and ends with
[`~datasets_script.schema.training_record.TrainingRecord.write`]. A script that makes a model in one go writes it into
[`new_model_folder`].
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets_script.utils.errors import UserError
from datasets_script.utils.files import replacing_folder, write_json


RECIPE_FILE = "recipe.json"

# Arguments that do not change what is learned: a run may be continued with others.
_INCIDENTAL = ("report_to", "run_name", "dataloader_num_workers", "disable_tqdm")
_INCIDENTAL_PREFIXES = ("hub_", "logging_", "save_", "log_")


def begin_run(
    folder: Path, recipe: Mapping[str, Any], writes: bool = True, option: str = "--output_dir"
) -> Path | None:
    """
    Claim a folder for a recipe.

    Args:
        folder (`Path`): Where the model will be.
        recipe (`Mapping`): The arguments that decide what is learned, as JSON can hold them.
        writes (`bool`, *optional*, defaults to `True`): Whether this process is the one that writes.
        option (`str`, *optional*, defaults to `"--output_dir"`): The argument that names the folder, for errors.

    Returns:
        `Path`, *optional*: The checkpoint to continue from, the last that is whole.

    Raises:
        UserError: the folder is another recipe's.
    """
    path, learned = folder / RECIPE_FILE, {n: v for n, v in recipe.items() if not _is_incidental(n)}
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if changed := sorted(n for n in before.keys() | learned.keys() if before.get(n) != learned.get(n)):
            name = changed[0]
            raise UserError(
                f"{option} '{folder}' is of another recipe, with {name} = {before.get(name)} and not "
                f"{learned.get(name)}: choose another folder"
            )
    elif any(folder.glob("checkpoint-*")):
        raise UserError(f"{option} '{folder}' holds checkpoints of another program: choose another folder")
    if writes:
        write_json(path, learned)
    return find_checkpoint(folder)


def find_checkpoint(folder: Path) -> Path | None:
    """Return the last checkpoint of a run that is whole, or `None`."""
    # The state is the last that is written of a checkpoint.
    whole = [state.parent for state in folder.glob("checkpoint-*/trainer_state.json")]
    return max(whole, key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """Return the step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def check_new_folder(folder: Path, option: str) -> None:
    """
    Refuse a folder that holds something.

    Args:
        folder (`Path`): Where a model will be.
        option (`str`): The argument that names it.

    Raises:
        UserError: it is a file, or a folder that is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{option} must be a new or empty folder, got '{folder}': choose another or remove it")


@contextmanager
def new_model_folder(folder: Path, option: str) -> Iterator[Path]:
    """
    Yield an empty temporary folder, and move it to `folder` once the block has succeeded.

    Args:
        folder (`Path`): Where the model will be.
        option (`str`): The argument that names it.

    Raises:
        UserError: it holds something already.
    """
    check_new_folder(folder, option)
    with replacing_folder(folder) as temporary:
        yield temporary


def _is_incidental(name: str) -> bool:
    return name in _INCIDENTAL or name.startswith(_INCIDENTAL_PREFIXES)
