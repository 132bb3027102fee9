"""The recipes and commands in the README of training exist and have the stated facts."""

from __future__ import annotations

import re
import shlex

from training.recipe_index import find_recipe, list_recipes
from training.sft_vlm import parse

from ..helpers.paths import ROOT


README = (ROOT / "training" / "README.md").read_text(encoding="utf-8")


def test_the_table_gives_the_facts_of_every_recipe():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*--config \w+`) \|$", README, re.MULTILINE))
    assert rows.keys() == {recipe.name for recipe in list_recipes()}
    for recipe in list_recipes():
        paper, base, memory, command = rows[recipe.name].split(" | ")
        assert paper == (recipe.paper if recipe.paper != "none" else "–")
        assert (base, memory) == (f"`{recipe.base_model}`", recipe.memory)
        script = "run" if "8 GPUs" in recipe.memory else f"python -m training.{recipe.script}"
        assert command == f"`{script} --config {recipe.name}`"


def test_commands_name_recipes_and_arguments_that_exist(monkeypatch):
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = [shlex.split(line, comments=True) for line in lines]
    trained = [words[words.index("--config") :] for words in found if "training.sft_vlm" in words or "sft" in words]
    assert len(trained) == 6
    for words in trained:
        # The parser would refuse the recipe without a GPU.
        parse([*words, "--use_cpu", "True", "--bf16", "False"])
        assert find_recipe(words[1])
