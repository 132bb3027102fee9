"""The command line opens without the libraries that take seconds, and says what was meant."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from functools import cache

import pytest

from datasets_script.cli.commands import COMMANDS
from datasets_script.cli.main import build_parser, main
from datasets_script.cli.parser import did_you_mean
from datasets_script.cli.verbosity import set_verbosity

from ...helpers.paths import ROOT


HEAVY = {
    "accelerate",
    "datasets",
    "diffusers",
    "evaluate",
    "huggingface_hub",
    "matplotlib",
    "pandas",
    "pyarrow",
    "safetensors",
    "scipy",
    "sklearn",
    "torch",
    "torchvision",
    "transformers",
    "trl",
}
# Far above what is needed, far below the 4,139 of an import of torch, diffusers and transformers.
MOST_MODULES = 600
REPORT = "import json, sys; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
NAMES = [command.name for command in COMMANDS]


@cache
def loaded(statement: str) -> frozenset[str]:
    """Names of the modules that a statement loads, in a process of its own."""
    script = f"try:\n    {statement}\nfinally:\n    {REPORT}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return frozenset(json.loads(done.stderr.splitlines()[-1]))


def is_light(statement: str) -> bool:
    modules = loaded(statement)
    found = sorted(HEAVY & modules)
    assert not found, f"`{statement}` loads {', '.join(found)}"
    assert len(modules) < MOST_MODULES, f"`{statement}` loads {len(modules)} modules"
    return True


def command_line(*words: str) -> str:
    return f"from datasets_script.cli.main import main; main({list(words)!r})"


class TestWeight:
    @pytest.mark.parametrize("name", NAMES)
    def test_the_help_of_a_command_is_light(self, name):
        assert is_light(
            f"from datasets_script.cli.main import build_parser as b; b().commands[{name!r}].format_help()"
        )

    def test_the_help_imports_no_command(self):
        modules = loaded("from datasets_script.cli.main import build_parser as b; b().format_help()")
        assert not modules & {f"datasets_script.cli.{name}" for name in NAMES} and "numpy" not in modules

    def test_a_typing_error_is_light(self):
        assert is_light(command_line("synthesize", "photos", "out", "--solver", "fireflo"))

    def test_a_mistake_is_light(self, tmp_path):
        assert is_light(command_line("status", str(tmp_path)))

    def test_the_state_of_a_run_is_light(self, run_folder):
        assert is_light(command_line("status", str(run_folder)))

    def test_the_list_of_recipes_is_light(self):
        assert is_light(command_line("train"))

    @pytest.mark.parametrize("module", ["diffusers_artifact.mapping", "evaluate_metrics", "datasets_script"])
    def test_an_import_is_light(self, module):
        assert is_light(f"import {module}")

    def test_a_planted_weight_is_found(self):
        with pytest.raises(AssertionError, match="loads datasets, .*pyarrow"):
            is_light("import datasets")


@pytest.fixture
def run_folder(tmp_path):
    settings = {"shard_size": 4}
    (tmp_path / "run.json").write_text(
        json.dumps({"status": "running", "settings": settings, "sources": {"count": 5}})
    )
    (tmp_path / "sources.jsonl").write_text("".join(f'{{"source_id": "{number}.png"}}\n' for number in range(5)))
    return tmp_path


class TestHelp:
    def test_commands_are_in_groups(self, capsys):
        with pytest.raises(SystemExit) as ended:
            main(["--help"])
        told = capsys.readouterr().out
        assert ended.value.code == 0
        groups = ("make data:", "inspect:", "benchmarks and scores:", "train and detect:", "publish:")
        places = [told.index(f"\n{group}\n") for group in groups]
        assert places == sorted(places)
        for command in COMMANDS:
            assert f"\n  {command.name} " in told
            assert told.index(f"\n{command.group}:\n") < told.index(f"\n  {command.name} ")

    @pytest.mark.parametrize("name", NAMES)
    def test_a_command_explains_itself_with_examples(self, name, capsys):
        with pytest.raises(SystemExit):
            main([name, "--help"])
        told = capsys.readouterr().out
        examples = told.partition("\nexamples:\n")[2].splitlines()
        assert any(line.startswith(f"  artiagent {name}") for line in examples), told
        # A continuation is indented deeper.
        assert all(line.startswith("  ") for line in examples if line)

    @pytest.mark.parametrize("name", NAMES)
    def test_every_argument_has_a_help_that_stands_alone(self, name):
        parser = build_parser().commands[name]
        parser.format_help()
        for action in parser._actions:
            text = (action.help or "").strip()
            assert text or action.choices, action
            assert not text.startswith(("of ", "default:")), (action.option_strings, text)

    def test_the_version_is_told(self, capsys):
        with pytest.raises(SystemExit) as ended:
            main(["--version"])
        assert ended.value.code == 0 and capsys.readouterr().out.startswith("artiagent 0.")

    def test_the_package_runs_as_a_module(self):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "datasets_script.cli"]
        done = subprocess.run([*command, "--version"], env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.startswith("artiagent 0.")
        done = subprocess.run([*command, "stauts"], env=environment, capture_output=True, text=True)
        assert done.returncode == 2 and "did you mean 'status'?" in done.stderr


class TestMistakes:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["synthesise"], "COMMAND must be one of demo, synthesize"),
            (["synthesise"], "got 'synthesise'; did you mean 'synthesize'? (see `artiagent --help`)"),
            (["synthesize", "a", "b", "--solvr", "x"], "unknown option --solvr; did you mean '--solver'?"),
            (["synthesize", "a", "b", "--sovler=x"], "unknown option --sovler; did you mean '--solver'?"),
            (["synthesize", "a", "b", "--zzz"], "unknown option --zzz (see `artiagent synthesize --help`)"),
            (["synthesize", "a", "b", "c"], "unexpected argument 'c'"),
            (["synthesize", "a", "b", "--solver", "fireflo"], "--solver must be one of euler, fireflow"),
            (["synthesize", "a", "b", "--solver", "fireflo"], "got 'fireflo'; did you mean 'fireflow'?"),
            (["synthesize", "a", "b", "--limit", "ten"], "--limit must be a whole number, got 'ten'"),
            (["synthesize", "a"], "the following arguments are required: OUT (see `artiagent synthesize --help`)"),
            (["synthesize", "a", "b", "--tools", "add, distrot"], "got 'distrot'; did you mean 'distort'?"),
            (["prepare", "artibnch"], "NAME must be one of artiagent, artibench"),
            (["prepare", "artiagent", "--test-share", "1"], "--test-share must be at least 0 and below 1, got 1.0"),
            (
                ["push", "modle"],
                "KIND must be one of model, detector, reward, lora, dataset, metric, pipeline, app, got 'modle'",
            ),
            (["detect", "a.png", "--timeout", "0"], "--timeout must be above 0, got 0.0"),
            (["evaluate", "p", "--benchmark", "b", "--threshold", "x"], "--threshold must be a number, got 'x'"),
            (["status", "a", "-q", "-v"], "not allowed with argument"),
        ],
    )
    def test_they_are_told_in_a_line_with_what_was_meant(self, words, message, capsys):
        assert main(words) == 2
        told = capsys.readouterr().err
        assert told.startswith("artiagent: ") and told.count("\n") == 1 and message in told

    def test_nothing_is_suggested_where_nothing_is_near(self):
        assert did_you_mean("--bogus", ["--verbose", "--quiet"]) == ""


class TestVerbosity:
    @pytest.fixture(autouse=True)
    def restored(self, monkeypatch):
        for name in ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS", "DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY"):
            monkeypatch.setenv(name, "")
        package = logging.getLogger("datasets_script")
        before = package.level
        yield
        set_verbosity()
        for name in ("datasets_script", "diffusers_artifact", "evaluate_metrics", "hub_cards"):
            logging.getLogger(name).setLevel(before)

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["status", "x"], (0, False)),
            (["-v", "status", "x"], (1, False)),
            (["status", "x", "-vv"], (2, False)),
            (["-q", "status", "x"], (0, True)),
            (["status", "-q", "x"], (0, True)),
        ],
    )
    def test_it_stands_before_and_after_the_command(self, words, expected):
        args = build_parser().parse_args(words)
        assert (args.verbose, args.quiet) == expected

    def test_levels(self, capsys):
        logger = logging.getLogger("datasets_script.somewhere")
        told = {}
        for name, (verbose, quiet) in {"quiet": (0, True), "info": (1, False), "debug": (2, False)}.items():
            set_verbosity(verbose, quiet)
            for level in ("debug", "info", "warning", "error"):
                getattr(logger, level)("%s of %s", level, name)
            told[name] = [line.partition(":")[0].split()[0] for line in capsys.readouterr().err.splitlines()]
        assert told["quiet"] == ["ERROR"]
        assert told["info"] == ["INFO", "WARNING", "ERROR"]
        assert told["debug"] == ["DEBUG", "INFO", "WARNING", "ERROR"]

    def test_quiet_hides_progress_bars(self, run_folder):
        script = "; ".join(
            [
                "import sys",
                "from datasets_script.cli.main import main",
                f"main(['-q', 'status', {str(run_folder)!r}])",
                "from tqdm import tqdm",
                "print(list(tqdm(range(3))))",
            ]
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.endswith("[0, 1, 2]\n") and done.stderr == ""
