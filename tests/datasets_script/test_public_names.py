"""The short homes of public names, which cost nothing until they are used."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import datasets_script

from ..helpers.paths import ROOT


HEAVY = ("torch", "datasets", "transformers", "diffusers", "numpy", "matplotlib", "pyarrow", "pandas")


def loaded_by(statement: str) -> set[str]:
    """The heavy libraries that a fresh process has loaded after a statement."""
    code = f"import sys; {statement}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_no_heavy_library():
    assert loaded_by("import datasets_script; dir(datasets_script)") == set()


def test_the_list_of_perception_backends_loads_no_model():
    assert not loaded_by("from datasets_script.agents.perception import BACKENDS, PerceptionSpec") & set(HEAVY[:4])


def test_public_names_are_found_where_they_are_said_to_be():
    for name in datasets_script.__all__:
        value = getattr(datasets_script, name)
        assert callable(value) and value.__name__ == name and inspect.getdoc(value)
    assert set(datasets_script.__all__) <= set(dir(datasets_script))
    with pytest.raises(AttributeError, match="has no attribute 'synthesise'"):
        _ = datasets_script.synthesise
