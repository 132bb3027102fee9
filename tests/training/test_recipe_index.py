"""Recipes are found by name and state all their facts."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from datasets_script.utils.errors import UserError
from training.recipe_index import RECIPES, find_recipe, list_recipes, read_recipe_info

from ..helpers.paths import ROOT


def test_every_recipe_gives_its_facts():
    recipes = list_recipes()
    assert {recipe.path for recipe in recipes} == set(RECIPES.rglob("*.yaml"))
    for recipe in recipes:
        assert recipe.paper and recipe.memory and recipe.base_model
        assert recipe.path.parent.name == recipe.script
        assert (ROOT / "training" / f"{recipe.script}.py").is_file()
    names = [recipe.name for recipe in recipes]
    assert len(set(names)) == len(names)


def test_a_recipe_is_found_by_name_or_path(tmp_path):
    assert find_recipe("cpu_small") == RECIPES / "sft_vlm" / "cpu_small.yaml"
    mine = tmp_path / "mine.yaml"
    mine.write_text("# script: sft_vlm\n# paper: none\n# memory: a CPU\nmodel_name_or_path: runs/base\n# late: no\n")
    assert find_recipe(str(mine)) == mine
    info = read_recipe_info(mine)
    assert (info.name, info.script, info.base_model, info.paper, info.memory) == (
        *("mine", "sft_vlm", "runs/base", "none", "a CPU"),
    )


@pytest.mark.parametrize("name", ["cpu_smal", "training/recipes/cpu_small.yaml"])
def test_an_unknown_name_gets_the_nearest_and_the_list(name):
    message = (
        f"recipe must be a YAML file or one of .*cpu_small, .*, got '{re.escape(name)}'; did you mean 'cpu_small'"
    )
    with pytest.raises(UserError, match=message):
        find_recipe(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# script: sft_vlm\n# paper: none\na: 1\n", "add `# memory: ...`"),
        ("# script: sft_vlm\n# paper: none\n# memory: a CPU\n- a\n", "must hold names and values"),
        ("# script: sft_vlm\n# paper: none\n# memory: a CPU\na: [\n", "must be YAML"),
    ],
)
def test_a_recipe_that_cannot_be_read_is_told(text, message, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_recipe_info(tmp_path / "mine.yaml")


def test_the_list_loads_nothing_heavy():
    code = (
        "import sys, training.recipe_index as index; index.list_recipes();"
        "print(*{name.partition('.')[0] for name in sys.modules} & "
        "{'torch', 'transformers', 'trl', 'datasets', 'diffusers', 'numpy', 'huggingface_hub'})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
