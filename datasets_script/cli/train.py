"""`artiagent train`: run a training recipe by name."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from training.recipe_index import RecipeInfo, find_recipe, list_recipes, read_recipe_info

from .parser import Parser


DESCRIPTION = """\
Run a training recipe, a YAML file with the base model, the data and all hyperparameters. Without a name, list the
recipes with their base model, the paper they follow, and the memory they need."""

EPILOG = """\
RECIPE is a name from the list, or your own YAML file with the same comments at its top, which name its script.
`artiagent train RECIPE OPTIONS` runs `python -m training.SCRIPT --config RECIPE OPTIONS`. To train on several GPUs,
run `accelerate launch -m training.SCRIPT --config RECIPE OPTIONS` instead.

examples:
  artiagent train                                                  list the recipes
  artiagent train cpu_small --help                                 list the options of its script
  artiagent train qwen3_vl_8b_lora_24gb --dataset_name out/        train on your own pairs
  artiagent train my_recipe.yaml --learning_rate 1e-5 --max_steps 100"""


def add_arguments(parser: Parser) -> None:
    parser.usage = "%(prog)s [RECIPE] [options of its script]"
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="name of a recipe, or a YAML file")
    parser.add_argument(
        "options",
        nargs=argparse.REMAINDER,
        metavar="OPTIONS",
        help="options of the recipe's script; they override the recipe",
    )
    parser.set_defaults(interrupted="the checkpoints so far are kept; see the script's --help for how to resume.")


def run(args: argparse.Namespace) -> int:
    if args.recipe is None:
        print(recipe_list(list_recipes()))
        return 0
    path = find_recipe(args.recipe)
    return run_script(read_recipe_info(path).script, path, args.options)


def recipe_list(recipes: Sequence[RecipeInfo]) -> str:
    """Return a readable list of the recipes, grouped by script."""
    lines = []
    for script in dict.fromkeys(recipe.script for recipe in recipes):
        lines.append(f"python -m training.{script}:")
        for recipe in (recipe for recipe in recipes if recipe.script == script):
            lines += [
                f"  {recipe.name}",
                f"      base model  {recipe.base_model or 'set it with --model_name_or_path'}",
                f"      paper       {recipe.paper}",
                f"      memory      {recipe.memory}",
            ]
        lines.append("")
    return "\n".join([*lines, "Run one with `artiagent train NAME`; its files are in training/recipes."])


def run_script(script: str, recipe: Path, options: Sequence[str]) -> int:
    """
    Run a training script on a recipe in a separate process, so that this one imports nothing heavy.

    Args:
        script (`str`): Name of a module in [`training`].
        recipe (`Path`): File of the recipe.
        options (`Sequence[str]`): Further options of the script.

    Returns:
        `int`: The script's exit status, or 128 plus the number of the signal that ended it.
    """
    process = subprocess.Popen([sys.executable, "-m", f"training.{script}", "--config", str(recipe), *options])
    with _passing_on(process.send_signal):
        status = process.wait()
    return status if status >= 0 else 128 - status


@contextmanager
def _passing_on(send: Callable[[int], None]) -> Iterator[None]:
    """Pass SIGTERM on to the script, and ignore Ctrl-C, which reaches the script by itself; both leave us waiting."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, _: send(number)),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
