"""What the READMEs show is true: code runs offline or names what exists, commands parse, links lead somewhere."""

from __future__ import annotations

import ast
import builtins
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets_script.cli.main import build_parser
from training import (
    ddpo,
    pair_dpo,
    preview_vlm,
    reward_report,
    sft_vlm,
    train_pixel_detector,
    train_reward,
    treat_lora,
)
from training.recipe_index import find_recipe, read_recipe_info

from .helpers.benchmark_sources import artibench_row, write_artibench
from .helpers.code_blocks import GUIDES, Block, blocks, read_notebook
from .helpers.made_pairs import make_pair, write_run
from .helpers.paths import ROOT
from .test_packaging import extras


# Blocks that need a checkpoint of the Hub, or photos of the reader's: all others run.
NEEDS_MORE = ("black-forest-labs/", '"my-tuned-model"', '"my-pixel-detector"', '"my-reward-model"', '"portraits"')
PARSERS = {
    "ddpo": ddpo.parse,
    "sft_vlm": sft_vlm.parse,
    "train_pixel_detector": train_pixel_detector.parse,
    "pair_dpo": pair_dpo.parse,
    "train_reward": train_reward.parse,
    "treat_lora": treat_lora.parse,
}
DENOISER_SCRIPTS = ("ddpo", "pair_dpo", "treat_lora")
# What their readers have at hand, and the text around them speaks of.
READERS_NAMES = {"photo", "mapping", "mask", "images"}

RUN = """
import doctest, json, sys
from datasets_script.benchmarks.prepare import prepare

prepare("artibench", "artibench-source", allow_partial=True)
parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
for guide, blocks in json.load(open("blocks.json")).items():
    names = {}
    for line, is_session, code in blocks:
        if is_session:
            test = parser.get_doctest(code, names, f"{guide}:{line}", guide, line)
            runner.run(test, clear_globs=False)
            names = test.globs
        else:
            exec(compile("\\n" * (line - 1) + code, guide, "exec"), names)
sys.exit(runner.summarize().failed)
"""


def test_the_first_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def needs_more(block: Block) -> bool:
    return any(name in block.code for name in NEEDS_MORE)


def python_blocks() -> list[Block]:
    return [block for guide in GUIDES for block in blocks(guide, "python")]


def test_python_runs_as_it_stands(tmp_path):
    runnable: dict[str, list[tuple[int, bool, str]]] = {}
    for block in python_blocks():
        if not needs_more(block):
            runnable.setdefault(block.guide, []).append((block.line, block.is_session, block.code))
    assert {guide: len(found) for guide, found in runnable.items()} == {
        "README.md": 3,
        "datasets_script/README.md": 2,
        "diffusers_artifact/README.md": 2,
        "evaluate_metrics/README.md": 1,
    }
    (tmp_path / "blocks.json").write_text(json.dumps(runnable))
    write_run(tmp_path / "runs" / "demo", [make_pair(0)], shards=1)
    write_artibench(tmp_path / "artibench-source", [artibench_row(number) for number in range(4)])
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", RUN], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    clean, artifact = (np.asarray(Image.open(tmp_path / f"{name}.png"), dtype=int) for name in ("clean", "artifact"))
    # The copies lie one patch above or below the eyes; the rest of the image hardly changes.
    change = np.abs(artifact - clean).max(axis=2)
    copies = max(change[row : row + 16, 96:160].mean() for row in (80, 112))
    assert copies > 30 and copies > 10 * change[176:].mean()


def imported_names(tree: ast.Module) -> dict[str, Any]:
    """Run the import statements of a block, and nothing else of it."""
    names: dict[str, Any] = {}
    imports: list[ast.stmt] = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module(imports, []), "imports", "exec"), names)
    del names["__builtins__"]
    return names


def resolved(node: ast.expr, names: dict[str, Any]) -> Any:
    """Look up what an expression such as `torch.bfloat16` names; `None` where no import gives it."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = resolved(node.value, names)
        return None if owner is None else getattr(owner, node.attr)
    return None


@pytest.mark.parametrize(
    "block", [block for block in python_blocks() if needs_more(block)], ids=lambda block: f"{block.guide}:{block.line}"
)
def test_python_that_needs_more_names_what_exists(block):
    tree = ast.parse(block.code)
    names = imported_names(tree)
    assert names
    stored = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            assert node.id in {*names, *stored, *READERS_NAMES, *vars(builtins)}, node.id
        elif isinstance(node, ast.Attribute):
            resolved(node, names)
        elif isinstance(node, ast.Call):
            called = resolved(node.func, names)
            if callable(called) and not isinstance(called, ModuleType):
                keywords = {keyword.arg: None for keyword in node.keywords if keyword.arg}
                inspect.signature(called).bind(*node.args, **keywords)


@cache
def commands(guide: str) -> tuple[tuple[str, ...], ...]:
    """The words of every command line of a guide: of its shell blocks, and behind a `$` elsewhere."""
    lines = [line for block in blocks(guide, "bash") for line in block.code.replace("\\\n", " ").splitlines()]
    lines += [line[2:] for block in blocks(guide, "") for line in block.code.splitlines() if line.startswith("$ ")]
    parts = [part for line in lines for part in line.split(" && ")]
    split = (shlex.split(part, comments=True) for part in parts)
    return tuple(tuple(words) for words in split if words)


def all_commands(*beginning: str) -> Iterator[list[str]]:
    """What follows these words, in every command of every guide that begins with them."""
    for guide in GUIDES:
        for words in commands(guide):
            if words[: len(beginning)] == beginning:
                yield list(words[len(beginning) :])


def test_every_command_is_checked_by_a_test_of_this_file():
    programs = {words[0] for guide in GUIDES for words in commands(guide)}
    assert programs == {"accelerate", "artiagent", "make", "pip", "python", "trl", "."}
    modules = {words[2] for guide in GUIDES for words in commands(guide) if words[0] == "python"}
    assert modules == {
        *("training.preview_vlm", "training.sft_vlm", "training.train_pixel_detector"),
        *("training.train_reward", "training.reward_report", "training.treat_lora", "training.pair_dpo"),
        "training.ddpo",
        *("training.vlm.small_model", "training.vlm.tower"),
    }


def test_commands_have_arguments_that_exist():
    found = list(all_commands("artiagent"))
    assert {words[0] for words in found} >= {"synthesize", "show", "prepare", "predict", "evaluate", "detect", "push"}
    for words in found:
        build_parser().parse_args(words)


def parse_training(words: list[str]) -> None:
    script = read_recipe_info(find_recipe(words[words.index("--config") + 1])).script
    # The parser of transformers asks for the GPU that the recipe needs.
    narrow = [] if script in DENOISER_SCRIPTS else ["--bf16", "False"]
    PARSERS[script]([*words, "--use_cpu", "True", *narrow])


def test_training_commands_name_recipes_and_arguments_that_exist(monkeypatch):
    monkeypatch.chdir(ROOT)
    by_name = [words for words in all_commands("artiagent", "train") if words]
    launched = list(all_commands("accelerate", "launch", "--config_file"))
    scripts = [words[words.index("-m") + 1 :] for words in launched]
    assert scripts and all((ROOT / words[0]).is_file() for words in launched)
    assert all(words[0] == "training.sft_vlm" for words in scripts)
    found = [
        *(["--config", *words] for words in by_name),
        *(words[1:] for words in scripts),
        *all_commands("python", "-m", "training.sft_vlm"),
        *all_commands("python", "-m", "training.train_pixel_detector"),
        *all_commands("python", "-m", "training.train_reward"),
        *all_commands("python", "-m", "training.treat_lora"),
        *all_commands("python", "-m", "training.pair_dpo"),
        *all_commands("python", "-m", "training.ddpo"),
        *all_commands("trl", "sft"),
    ]
    assert by_name and len(found) == 19
    assert sum("training.sft_vlm" in words or "sft" in words for words in commands("training/README.md")) == 6
    for words in found:
        parse_training(words)
    for words in all_commands("python", "-m", "training.preview_vlm"):
        parse_training(preview_vlm.make_parser().parse_known_args(words)[1])
    for words in all_commands("python", "-m", "training.reward_report"):
        reward_report.make_parser().parse_args(words)


@pytest.mark.parametrize("module", ["small_model", "tower"])
def test_scripts_without_recipes_have_the_options_that_are_named(module):
    source = (ROOT / "training" / "vlm" / f"{module}.py").read_text(encoding="utf-8")
    options = [
        word for words in all_commands("python", "-m", f"training.vlm.{module}") for word in words if word[:2] == "--"
    ]
    assert options and all(f'"{option}"' in source for option in options)


def test_installations_and_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    made = [target for words in all_commands("make") for target in words]
    assert made and set(made) <= targets
    installed = list(all_commands("pip", "install", "-e"))
    assert installed
    for (what,) in installed:
        assert what[:2] == ".[" and set(what[2:-1].split(",")) <= set(extras())


def texts() -> dict[str, str]:
    """Every guide, card and notebook, without its code, by path."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", "*.md", "*.ipynb"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = {}
    for name in filter(None, listed.split("\0")):
        if name.endswith(".ipynb"):
            cells = read_notebook(ROOT / name)["cells"]
            text = "\n\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
        else:
            text = (ROOT / name).read_text(encoding="utf-8")
        found[name] = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return found


def anchors(path: Path) -> set[str]:
    """The anchors of a Markdown file's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", texts()[path.relative_to(ROOT).as_posix()], re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere():
    checked = 0
    for name, text in texts().items():
        # Templates are filled in when something is pushed.
        if name.startswith("hub_cards/templates/"):
            continue
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"https?://|mailto:", link):
                continue
            target, _, anchor = link.partition("#")
            path = (ROOT / name).parent.joinpath(target).resolve() if target else ROOT / name
            assert path.exists(), f"{name} links to {link}"
            if anchor:
                assert anchor in anchors(path), f"{name} links to {link}"
            checked += 1
    assert checked > 40
