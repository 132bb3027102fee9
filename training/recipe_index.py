"""
Index of the training recipes by name. It imports nothing heavier than PyYAML, so that the command line lists recipes
at once.

A recipe is one file, `recipes/SCRIPT/NAME.yaml`. Its facts are comments at the top of the file, as `# key: value`,
because the parsers of the training scripts refuse unknown names:

```yaml
# script: sft_vlm
# paper: ArtiAgent, stage 1
# memory: about 30 GB on each of 8 GPUs with ZeRO-3 (estimated)
```
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from datasets_script.utils.errors import UserError


RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class RecipeInfo:
    """
    Facts about a recipe.

    Attributes:
        name (`str`): File name without `.yaml`, as given to `--config`.
        script (`str`): Script that runs it: `python -m training.SCRIPT`.
        base_model (`str`): Model that training begins with: an id on the Hub, or the folder that an earlier step
            writes. Empty if the recipe names none.
        paper (`str`): The result that it reproduces, or `"none"`.
        memory (`str`): Required hardware and its memory.
        path (`Path`): The recipe's file.
    """

    name: str
    script: str
    base_model: str
    paper: str
    memory: str
    path: Path


def list_recipes() -> tuple[RecipeInfo, ...]:
    """
    Return the recipes that come with the package, sorted by script and name.

    Raises:
        UserError: A recipe lacks a fact.
    """
    return tuple(read_recipe_info(path) for path in _recipe_paths())


def find_recipe(name_or_path: str | Path) -> Path:
    """
    Return the file of a recipe.

    Args:
        name_or_path (`str` or `Path`): Name of a recipe, such as `cpu_small`, or path of a YAML file.

    Raises:
        UserError: There is no such file or recipe. The message suggests the closest name and lists all.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    recipes = {recipe.stem: recipe for recipe in _recipe_paths()}
    if str(name_or_path) in recipes:
        return recipes[str(name_or_path)]
    near = get_close_matches(path.stem, recipes, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise UserError(f"recipe must be a YAML file or one of {', '.join(recipes)}, got '{name_or_path}'{hint}")


def read_recipe_info(path: Path) -> RecipeInfo:
    """
    Read the facts of one recipe: the comments at the top of its file, and the base model that it sets.

    Raises:
        UserError: The file is not YAML, or its comments lack `script`, `paper` or `memory`.
    """
    text = path.read_text(encoding="utf-8")
    facts = _read_head(text)
    if missing := [key for key in ("script", "paper", "memory") if not facts.get(key)]:
        raise UserError(
            f"recipe '{path}' must begin with comments that give script, paper and memory, got no {missing[0]}; add "
            f"`# {missing[0]}: ...`"
        )
    return RecipeInfo(
        name=path.stem,
        script=facts["script"],
        base_model=str(parse_recipe(text, path).get("model_name_or_path", "")),
        paper=facts["paper"],
        memory=facts["memory"],
        path=path,
    )


def parse_recipe(text: str, path: Path) -> dict[str, Any]:
    """
    Parse the names and values of a recipe.

    Args:
        text (`str`): Content of the recipe.
        path (`Path`): File that the content comes from, for the error message.

    Returns:
        `dict`: Values by name.

    Raises:
        UserError: The content is not YAML, or not a mapping.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"recipe '{path}' must be YAML, got an error: {error}") from None
    if not isinstance(content, dict):
        raise UserError(
            f"recipe '{path}' must hold names and values, got {type(content).__name__}; write one `name: value` a line"
        )
    return content


def _recipe_paths() -> list[Path]:
    return sorted(RECIPES.glob("*/*.yaml"))


def _read_head(text: str) -> dict[str, str]:
    facts: dict[str, str] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        key, colon, value = line.removeprefix("#").strip().partition(": ")
        if colon and key.isidentifier():
            facts.setdefault(key, value.strip())
    return facts
