"""The package's public names: loaded on first use, found by diffusers, listed without torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from diffusers.utils.dynamic_modules_utils import get_relative_imports

import diffusers_artifact
from diffusers_artifact.choices import SOLVER_NAMES
from diffusers_artifact.schedulers import SOLVERS

from ..helpers.paths import ROOT


PACKAGE = ROOT / "diffusers_artifact"
LIGHT = ["mapping", "choices", "presets", "corruption_levels", "tools", "tools.geometry"]


def run(program: str) -> object:
    """Run `program` in a process of its own, and return the JSON that it prints."""
    process = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def test_modules_of_names_load_neither_torch_nor_diffusers():
    program = f"""
import importlib, json, sys
for name in {LIGHT}:
    importlib.import_module("diffusers_artifact." + name)
print(json.dumps(sorted({{"torch", "diffusers", "transformers"}} & set(sys.modules))))
"""
    assert run(program) == []


def test_every_public_name_is_there():
    assert all(hasattr(diffusers_artifact, name) for name in diffusers_artifact.__all__)
    assert set(diffusers_artifact.__all__) <= set(dir(diffusers_artifact))
    with pytest.raises(AttributeError, match="module 'diffusers_artifact' has no attribute 'PatchMap'"):
        diffusers_artifact.PatchMap  # noqa: B018


@pytest.mark.parametrize("first, second", [("diffusers_artifact", "diffusers"), ("diffusers", "diffusers_artifact")])
def test_diffusers_finds_the_pipeline_by_its_name_whichever_is_imported_first(first, second):
    # Other libraries call `find_spec` to see whether diffusers is installed, which must not count as importing it.
    program = f"""
import importlib.util, json, sys
import {first}
importlib.util.find_spec("diffusers")
import {second}
import diffusers
report = []
for name, module in ("ArtifactInjectionPipeline", "pipeline"), ("ArtifactCorruptionPipeline", "pipeline_corruption"):
    before = "diffusers_artifact." + module in sys.modules
    found = getattr(diffusers, name)
    own = getattr(importlib.import_module("diffusers_artifact"), name)
    report += [before, found is own, found.__module__]
print(json.dumps([*report, hasattr(diffusers, "NoPipeline")]))
"""
    assert run(program) == [
        *(False, True, "diffusers_artifact.pipeline"),
        *(False, True, "diffusers_artifact.pipeline_corruption"),
        False,
    ]


def test_solvers_are_listed_where_they_are_named():
    assert tuple(SOLVERS) == SOLVER_NAMES


def siblings(module: str) -> set[str]:
    """Return the sibling modules that `module` imports, as diffusers finds them."""
    return set(get_relative_imports(PACKAGE / f"{module}.py"))


@pytest.mark.parametrize("entry", ["pipeline", "pipeline_corruption", "modular_blocks"])
def test_a_file_that_is_loaded_alone_names_every_module_it_needs(entry):
    """From a local folder, diffusers copies only modules that the loaded file itself imports."""
    needed: set[str] = siblings(entry)
    seen: set[str] = set()
    while missing := needed - seen:
        seen |= missing
        needed |= set().union(*(siblings(module) for module in missing))
    assert needed == siblings(entry)
    assert not any("." in module for module in needed), "subfolders are not copied"


@pytest.mark.parametrize(("entry", "most"), [("pipeline", 90), ("pipeline_corruption", 105), ("modular_blocks", 180)])
def test_loading_from_the_hub_asks_for_few_files(entry, most):
    """diffusers asks the Hub for a file once for each chain of relative imports that leads to it."""

    def chains(module: str) -> int:
        return 1 + sum(chains(sibling) for sibling in siblings(module))

    assert chains(entry) <= most
