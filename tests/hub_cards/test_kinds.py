"""Tests of the registry of kinds."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hub_cards.kinds import KINDS, find_kind
from hub_cards.payload import is_allowed, missing_mark

from ..helpers.paths import ROOT


def test_every_file_of_the_folder_is_a_kind():
    files = {path.stem for path in (ROOT / "hub_cards" / "kinds").glob("*.py")} - {"__init__"}
    assert len(KINDS) == len(files) == len({kind.name for kind in KINDS})
    for kind in KINDS:
        assert kind.repo_type in ("model", "dataset", "space") and kind.help and kind.path_help
        assert all(line.startswith(f"{kind.name} ") for line in kind.examples)
        assert find_kind(kind.name) is kind
    with pytest.raises(
        ValueError, match="must be one of model, detector, reward, lora, dataset, metric, pipeline, app, got 'space'"
    ):
        find_kind("space")


def test_a_pattern_stays_in_its_folder():
    model, dataset = find_kind("model"), find_kind("dataset")
    assert is_allowed(model, "model.safetensors") and not is_allowed(model, "checkpoint-1/model.safetensors")
    assert is_allowed(dataset, "data/pairs-00000.parquet") and is_allowed(dataset, "LICENSE.txt")


def test_a_kind_is_told_by_files_that_it_may_hold():
    for kind in KINDS:
        assert kind.marks and all(is_allowed(kind, file) for files in kind.marks for file in files)
        assert missing_mark(kind, "tester/miou", []) is not None
    metric, model = find_kind("metric"), find_kind("model")
    assert missing_mark(metric, "tester/miou", ["css.py"]) == "miou.py"
    assert missing_mark(metric, "tester/miou", ["miou.py"]) is None
    assert missing_mark(model, "a/b", ["training.json"]) == "processor_config.json or preprocessor_config.json"
    assert missing_mark(model, "a/b", ["training.json", "preprocessor_config.json"]) is None


def test_the_list_of_kinds_loads_nothing_heavy():
    code = (
        "import sys, hub_cards.kinds;"
        "print(*{name.partition('.')[0] for name in sys.modules} & "
        "{'torch', 'transformers', 'datasets', 'diffusers', 'numpy', 'pyarrow', 'PIL'})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_options_of_a_kind_are_what_its_payload_is_made_with():
    for kind in KINDS:
        assert {option.name for option in kind.options} <= set(kind.build.__annotations__)
