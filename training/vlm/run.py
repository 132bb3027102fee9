"""The folder of a training run: which recipe it is of, where to go on from, and what is recorded of it."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trl import TrlParser

from datasets_script.utils.errors import UserError
from datasets_script.utils.files import resolve_revision, write_json
from datasets_script.vlm.local import training_record
from training.recipe_index import find_recipe, parse_recipe


# Arguments that do not change what is learned: a run may be continued with others.
_INCIDENTAL = ("report_to", "run_name", "dataloader_num_workers", "disable_tqdm")
_INCIDENTAL_PREFIXES = ("hub_", "logging_", "save_", "log_")


def given_arguments(parser: TrlParser, arguments: Sequence[str]) -> dict[str, Any]:
    """
    The values of a recipe and of the command line, without the defaults of all others.

    Args:
        parser (`TrlParser`): Used up by this.
        arguments (`Sequence[str]`): Of the command line, the recipe as `--config FILE`.

    Raises:
        UserError: there is no such recipe, or it has a name that the parser does not know.
    """
    for action in parser._actions:
        action.default = argparse.SUPPRESS
    rest = list(arguments)
    if "--config" in rest[:-1]:
        place = rest.index("--config")
        recipe = rest[place + 1]
        if unknown := parser.set_defaults_with_config(**read_recipe(Path(recipe))):
            raise UserError(f"--config '{recipe}' has an unknown name, {unknown[0].removeprefix('--')}")
        del rest[place : place + 2]
    return vars(parser.parse_args(rest))


def with_recipe_paths(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command line with the file of a recipe in place of its name after `--config`."""
    found = list(arguments)
    for place, name in enumerate(found[:-1]):
        if name == "--config":
            found[place + 1] = str(find_recipe(found[place + 1]))
    return found


def read_recipe(path: Path) -> dict[str, Any]:
    """Read the names and values of a recipe; `UserError` where it is none."""
    content = parse_recipe(path.read_text(encoding="utf-8"), path)
    # TRL sets these as environment variables.
    content.pop("env", None)
    return content


def recipe_record(given: dict[str, Any]) -> dict[str, Any]:
    """What is kept of given arguments; of paths the name alone, as records are published."""
    return {
        name: Path(value).name if isinstance(value, str) and (os.path.isabs(value) or os.path.exists(value)) else value
        for name, value in given.items()
        if name not in ("output_dir", "hub_token")
    }


def begin_run(folder: Path, recipe: dict[str, Any], writes: bool) -> Path | None:
    """
    Claims a folder for a recipe.

    Args:
        folder (`Path`): Where the model will be.
        recipe (`dict`): As of [`recipe_record`].
        writes (`bool`): Whether this process is the one that writes.

    Returns:
        `Path`, *optional*: The checkpoint to go on from, the last that is whole.

    Raises:
        UserError: the folder is another recipe's.
    """
    path, learned = folder / "recipe.json", {n: v for n, v in recipe.items() if not _is_incidental(n)}
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if changed := sorted(n for n in before.keys() | learned.keys() if before.get(n) != learned.get(n)):
            name = changed[0]
            raise UserError(
                f"--output_dir '{folder}' is of another recipe, with {name} = {before.get(name)} and not "
                f"{learned.get(name)}: choose another folder"
            )
    elif any(folder.glob("checkpoint-*")):
        raise UserError(f"--output_dir '{folder}' holds checkpoints of another program: choose another folder")
    if writes:
        write_json(path, learned)
    # The state is the last that is written of a checkpoint.
    whole = [state.parent for state in folder.glob("checkpoint-*/trainer_state.json")]
    return max(whole, key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def find_base(model: str, revision: str) -> tuple[dict[str, Any], str | None, dict[str, Any]]:
    """
    What to record of the model that training begins with, the revision to load of it, and the record of its own
    training, empty for most.

    Args:
        model (`str`): A folder, or the id of a repository on the Hub.
        revision (`str`): Branch, tag or commit of a repository.

    Raises:
        UserError: there is no such model, or its record of a training cannot be read.
    """
    folder = Path(model)
    try:
        loaded, recorded = resolve_revision(model, revision)
    except (OSError, ValueError) as error:
        raise UserError(
            f"--model_name_or_path must be a folder or a model on the Hub, got '{model}': {error}"
        ) from None
    try:
        before = training_record(model, loaded)
    except (OSError, ValueError) as error:
        raise UserError(
            f"--model_name_or_path must have a readable training.json or none, got '{model}': {error}"
        ) from None
    if not folder.is_dir():
        return {"id": model, "revision": recorded}, loaded, before
    base: dict[str, Any] = {"id": folder.name, "revision": recorded}
    if "base_model" in before:
        base["base_model"] = before["base_model"]
    return base, loaded, before


def _is_incidental(name: str) -> bool:
    return name in _INCIDENTAL or name.startswith(_INCIDENTAL_PREFIXES)
