"""Arguments from recipes and the command line, and the model that training begins with."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trl import TrlParser

from datasets_script.schema.training_record import BaseModel, TrainingFacts
from datasets_script.utils.errors import UserError
from datasets_script.utils.files import resolve_revision
from datasets_script.vlm.local import training_record
from training.recipe_index import find_recipe, parse_recipe


def given_arguments(parser: TrlParser, arguments: Sequence[str]) -> dict[str, Any]:
    """
    Return the values given in a recipe and on the command line, without the defaults of other arguments.

    Args:
        parser (`TrlParser`): Parser of the script. It is changed and cannot be used again.
        arguments (`Sequence[str]`): Arguments of the command line, with the recipe as `--config FILE`.

    Returns:
        `dict`: Values by name.

    Raises:
        UserError: The recipe cannot be read, or sets a name that the parser does not know.
    """
    for action in parser._actions:
        action.default = argparse.SUPPRESS
    rest = list(arguments)
    if "--config" in rest[:-1]:
        place = rest.index("--config")
        recipe = rest[place + 1]
        if unknown := parser.set_defaults_with_config(**read_recipe(Path(recipe))):
            raise UserError(
                f"--config must set known names only, got {unknown[0].removeprefix('--')} in '{recipe}'; correct it"
            )
        del rest[place : place + 2]
    return vars(parser.parse_args(rest))


def parse_arguments(parser: TrlParser, arguments: Sequence[str]) -> tuple[Any, ...]:
    """
    Parse a command line, with the recipe as `--config FILE`.

    Args:
        parser (`TrlParser`): Parser of the script.
        arguments (`Sequence[str]`): Arguments of the command line.

    Returns:
        `tuple`: An instance of each of the parser's dataclasses.

    Raises:
        UserError: A value is refused, by the parser or by a dataclass.
    """
    try:
        return tuple(parser.parse_args_and_config(list(arguments)))
    except ValueError as error:
        raise UserError(str(error).strip()) from None


def with_recipe_paths(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command line, with the recipe's name after `--config` replaced by its file."""
    found = list(arguments)
    for place, name in enumerate(found[:-1]):
        if name == "--config":
            found[place + 1] = str(find_recipe(found[place + 1]))
    return found


def read_recipe(path: Path) -> dict[str, Any]:
    """
    Read the names and values of a recipe.

    Raises:
        UserError: The file is not YAML, or not a mapping.
    """
    content = parse_recipe(path.read_text(encoding="utf-8"), path)
    # TRL sets these as environment variables.
    content.pop("env", None)
    return content


def recipe_record(given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments to record, with paths reduced to their last part, because records are published."""
    return {
        name: Path(value).name if isinstance(value, str) and (os.path.isabs(value) or os.path.exists(value)) else value
        for name, value in given.items()
        if name not in ("output_dir", "hub_token")
    }


def find_base(model: str, revision: str) -> tuple[BaseModel, str | None, TrainingFacts]:
    """
    Find the model that training begins with.

    Args:
        model (`str`): Folder of a model, or id of a repository on the Hub.
        revision (`str`): Branch, tag or commit of the repository.

    Returns:
        `tuple`: The model's entry in the record, the revision to load, and the facts of its own training, which are
            empty for most models.

    Raises:
        UserError: There is no such model, or its `training.json` cannot be read.
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
        return BaseModel(model, recorded), loaded, before
    return BaseModel(folder.name, recorded, before.base), loaded, before
