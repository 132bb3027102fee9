"""The README's examples run as they stand, offline, in a process and a cache of their own."""

import os
import re
import shlex
import subprocess
import sys

from datasets_script.cli.main import build_parser
from tests.helpers.benchmark_sources import artibench_row, write_artibench
from tests.helpers.made_pairs import make_pair, write_run
from training.sft_vlm import parse

from .helpers.paths import ROOT


README = ROOT / "README.md"
RUN = """
import doctest, re, sys
from pathlib import Path
from datasets_script.benchmarks.prepare import prepare

prepare("artibench", "artibench-source", allow_partial=True)
blocks = re.findall(r"```python\\n(>>>.*?)```", Path(sys.argv[1]).read_text(encoding="utf-8"), re.DOTALL)
assert len(blocks) == 2, len(blocks)
parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
for block in blocks:
    runner.run(parser.get_doctest(block, {}, "README", "README.md", 0))
sys.exit(runner.summarize().failed)
"""


def test_examples_run(tmp_path):
    write_run(tmp_path / "runs" / "demo", [make_pair(0)], shards=1)
    write_artibench(tmp_path / "artibench-source", [artibench_row(number) for number in range(4)])
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(README.parent)}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(README)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def commands(program: str) -> list[list[str]]:
    """The arguments of every command line of a program in the README."""
    blocks = re.findall(r"```bash\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    split = [shlex.split(line, comments=True) for line in lines]
    beginning = program.split()
    return [words[len(beginning) :] for words in split if words[: len(beginning)] == beginning]


def test_commands_have_arguments_that_exist():
    found = commands("artiagent")
    assert {words[0] for words in found} >= {"synthesize", "prepare", "predict", "evaluate", "detect", "push"}
    for words in found:
        build_parser().parse_args(words)


def test_training_commands_name_recipes_and_arguments_that_exist(monkeypatch):
    monkeypatch.chdir(README.parent)
    launched = [words[words.index("training.sft_vlm") + 1 :] for words in commands("accelerate launch")]
    found = [*launched, *commands("python -m training.sft_vlm"), *commands("trl sft")]
    assert len(found) == 4
    for words in found:
        # The parser asks for the GPU that the recipe needs.
        parse([*words, "--use_cpu", "True", "--bf16", "False"])
