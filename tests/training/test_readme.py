"""What the guide to training says of recipes is true; `tests/test_readme.py` checks its commands."""

from __future__ import annotations

import re

from training.recipe_index import list_recipes

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
