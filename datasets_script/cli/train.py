"""`artiagent train`: a training recipe by its name."""

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
Runs a training recipe: a YAML file with the base model, the data and all hyper-parameters. Without a name it lists the
recipes with their base model, the paper they follow, and the memory they need."""

EPILOG = """\
RECIPE is a name from the list or a YAML file of your own that begins with the same comments. It is run by the script
that it names, in a process of its own: `artiagent train RECIPE OPTIONS` is
`python -m training.SCRIPT --config RECIPE OPTIONS`. For several GPUs start the script with accelerate:
`accelerate launch -m training.SCRIPT --config RECIPE OPTIONS`.

examples:
  artiagent train                                                  list the recipes
  artiagent train cpu_small --help                                 the options of its script
  artiagent train qwen3_vl_8b_lora_24gb --dataset_name out/        train on your own pairs
  artiagent train my_recipe.yaml --learning_rate 1e-5 --max_steps 100"""


def add_arguments(parser: Parser) -> None:
    parser.usage = "%(prog)s [RECIPE] [options of its script]"
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="name of a recipe, or a YAML file")
    parser.add_argument(
        "options", nargs=argparse.REMAINDER, metavar="OPTIONS", help="options of its script, which win over the recipe"
    )
    parser.set_defaults(interrupted="checkpoints so far are kept; the options of the script say how to resume.")


def run(args: argparse.Namespace) -> int:
    if args.recipe is None:
        print(recipe_list(list_recipes()))
        return 0
    path = find_recipe(args.recipe)
    return run_script(read_recipe_info(path).script, path, args.options)


def recipe_list(recipes: Sequence[RecipeInfo]) -> str:
    """Return the recipes as text for people, by script."""
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
    Run a training script on a recipe in a process of its own, so that nothing heavy is imported here.

    Args:
        script (`str`): Module of [`training`].
        recipe (`Path`): The recipe's file.
        options (`Sequence[str]`): Options of the script.

    Returns:
        `int`: The script's exit status, or 128 plus the number of the signal that ended it.
    """
    process = subprocess.Popen([sys.executable, "-m", f"training.{script}", "--config", str(recipe), *options])
    with _passing_on(process.send_signal):
        status = process.wait()
    return status if status >= 0 else 128 - status


@contextmanager
def _passing_on(send: Callable[[int], None]) -> Iterator[None]:
    """
    Send the script what ends this process, and wait for what it makes of that. Ctrl-C reaches it without our doing.
    """
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, _: send(number)),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
