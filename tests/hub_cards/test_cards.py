"""Run the commands and the Python code in the cards of datasets."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from typing import Any

import pytest
from datasets import load_dataset

from datasets_script.cli.main import build_parser

from ..helpers.benchmark_sources import artibench_row, picture, write_artibench
from ..helpers.made_pairs import make_pair, write_run
from ..helpers.paths import ROOT


CARDS = sorted((ROOT / "hub_cards" / "datasets").glob("*.md"))


def blocks(name: str, language: str) -> list[str]:
    card = (ROOT / "hub_cards" / "datasets" / f"{name}.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", card, re.DOTALL)


def run_commands(name: str) -> int:
    """Run the `prepare` and `export` commands of a card, and return their number."""
    parser = build_parser()
    lines = [shlex.split(line, comments=True) for block in blocks(name, "bash") for line in block.splitlines()]
    chosen = [line[1:] for line in lines if line[:2] in (["artiagent", "prepare"], ["artiagent", "export"])]
    for arguments in chosen:
        args = parser.parse_args(arguments)
        assert args.run(args) == 0
    return len(chosen)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)
def test_cards_have_code_that_compiles(card):
    assert [compile(block, card.name, "exec") for block in blocks(card.stem, "python")]


def test_a_benchmark_is_prepared_and_loaded_as_its_card_says(tmp_path, monkeypatch):
    # One benchmark suffices, since the cards of all benchmarks share this text.
    rows = [artibench_row(number) for number in range(1000)]
    for number, row in enumerate(rows):
        row["image"] = {"bytes": picture(number, (8, 10)), "path": None}
    write_artibench(tmp_path / "artibench-source", rows)
    monkeypatch.chdir(tmp_path)
    assert run_commands("artibench") == 2
    by_name, registered = blocks("artibench", "python")
    found: dict[str, Any] = {}
    exec(by_name, found)
    assert found["images"].num_rows == 1000
    assert [row["id"] for row in found["stream"]] == found["images"]["id"][:]
    # Runs in its own process, since names stay registered.
    done = subprocess.run(
        [sys.executable, "-c", f"{registered}\nprint(images.num_rows)"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "1000\n", done.stderr


def test_pairs_are_built_and_exported_as_their_card_says(tmp_path, monkeypatch):
    write_run(tmp_path / "out", [make_pair(index) for index in range(3)])
    (tmp_path / "out" / "README.md").write_text("---\nlicense: cc0-1.0\n---\n\n# Pairs\n")
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    for block in blocks("artiagent", "python"):
        exec(block, found)
    assert found["conversations"].num_rows == 6
    assert run_commands("artiagent") == 5
    for config, number in {"pairs": 3, "images": 6, "vqa": 6, "masks": 6}.items():
        assert load_dataset("./artiagent", config, split="train").num_rows == number
    assert {path.name for path in tmp_path.glob("out-*")} == {"out-coco", "out-tars", "out-chat", "out-dpo"}
