"""Options in a file: `artiagent synthesize --config`."""

from __future__ import annotations

import json

import pytest
import yaml

from datasets_script.cli.config import CONFIG_FILE, shown_options, write_config
from datasets_script.cli.main import build_parser, main

from ...helpers.engine_runs import make_photos


def parsed(*words: str):
    return build_parser().parse_args(["synthesize", "photos", "out", *words])


@pytest.fixture
def config(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_the_file_gives_options_and_the_command_line_wins(config):
    path = config(
        "tools: add,remove\nseed: 7\nlimit: 3\nannotations: in/stances.json\nallow-distilled: true\n"
        "vlm-timeout: 1e2\nrevision: null\nexecutor-option: [partition=gpu, 'time=24:00:00']\n"
    )
    for words in (
        ("--seed", "1", "--config", path),
        ("--config", path, "--seed=1"),
        (f"--config={path}", "--seed", "1"),
    ):
        args = parsed(*words)
        assert (args.tools, args.seed, args.limit, args.revision) == (("add", "remove"), 1, 3, None)
        assert str(args.annotations) == "in/stances.json" and args.allow_distilled is True
        assert args.vlm_timeout == 100.0 and args.executor_option == ["partition=gpu", "time=24:00:00"]
    assert parsed().seed == 0 and parsed("--config", config("# nothing\n")).seed == 0


def test_values_are_the_texts_of_the_command_line(config):
    # YAML's own types would make 86400 and an octal number of these.
    args = parsed("--config", config("executor-option: [time=1:30:00]\nvlm-revision: 010\nrevision: 1:30:00\n"))
    assert (args.vlm_revision, args.revision) == ("010", "1:30:00")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "solvr: euler\n",
            "--config must hold options of artiagent synthesize, got 'solvr' in '{path}'; did you mean 'solver'?",
        ),
        ("shard_size: 4\n", "got 'shard_size' in '{path}'; did you mean 'shard-size'?"),
        ("zzz: 4\n", "got 'zzz' in '{path}'\n"),
        ("config: other.yaml\n", "got 'config' in '{path}'; did you mean 'confine'?\n"),
        (
            "solver: fireflo\n",
            "`solver` in '{path}' must be one of euler, fireflow, midpoint, rf_solver, uni_inv, got",
        ),
        ("limit: 0\n", "`limit` in '{path}' must be at least 1, got 0"),
        ("limit: [1, 2]\n", "`limit` in '{path}' must be one value, got ['1', '2']"),
        ("executor-option: a=b\n", "`executor-option` in '{path}' must be a list of values, got 'a=b'"),
        ("executor-option: [[a]]\n", "`executor-option` in '{path}' must be a list of values"),
        ("allow-distilled: maybe\n", "`allow-distilled` in '{path}' must be true or false, got 'maybe'"),
        ("- solver\n", "--config must hold one option per line as NAME: VALUE, got '{path}'"),
        ("solver: [\n", "--config must be a YAML file, got '{path}'"),
    ],
)
def test_mistakes_are_told_with_the_file(text, message, config, capsys):
    path = config(text)
    assert main(["synthesize", "photos", "out", "--config", path]) == 2
    told = capsys.readouterr().err
    assert message.format(path=path) in told and "Traceback" not in told


def test_a_file_that_is_not_there_is_told(tmp_path, capsys):
    assert main(["synthesize", "photos", "out", "--config", str(tmp_path / "no.yaml")]) == 2
    assert "--config must be a readable file" in capsys.readouterr().err
    assert main(["synthesize", "photos", "out", "--config"]) == 2
    assert "--config: expected one argument" in capsys.readouterr().err


def test_what_was_written_gives_the_same_options(tmp_path):
    words = (
        "--tools",
        "add",
        "--annotations",
        "è/a.json",
        "--vlm",
        "m",
        "--allow-distilled",
        "--seed",
        "3",
        "--rank",
        "0",
    )
    args = parsed(
        *words,
        "--force-new",
        "-v",
        "--executor-option",
        "time=24:00:00",
        "--executor-option",
        "a=1",
        "--max-rerolls",
        "0",
    )
    write_config(tmp_path, args.shown_options, "synthesize")
    path = tmp_path / CONFIG_FILE
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert written["tools"] == "add" and written["seed"] == 3 and written["annotations"] == "è/a.json"
    assert written["max-rerolls"] == 0 and written["shard-size"] == 32 and "revision" not in written
    assert not {"rank", "force-new", "verbose", "config", "world-size"} & written.keys()
    again = parsed("--config", str(path))
    assert again.shown_options == args.shown_options
    changed = {"config", "rank", "force_new", "verbose", "shown_options"}
    assert {n: v for n, v in vars(again).items() if n not in changed} == {
        n: v for n, v in vars(args).items() if n not in changed
    }
    assert [file.name for file in tmp_path.iterdir()] == [CONFIG_FILE]


def test_what_is_shown_is_what_is_in_effect(config):
    parser = build_parser().commands["synthesize"]
    args = parser.parse_args(["photos", "out", "--config", config("solver: euler\n"), "--limit", "2"])
    shown = shown_options(parser, args)
    assert shown == args.shown_options
    assert shown["solver"] == "euler" and shown["limit"] == 2 and shown["model"] == "embedded"


def test_a_run_keeps_its_options_and_a_refused_command_leaves_them(config, tmp_path, capsys):
    photos, out = make_photos(tmp_path / "photos", tmp_path / "scratch"), tmp_path / "out"
    words = ["synthesize", str(photos), str(out), "--config"]
    path = config("limit: 1\ntools: add\nnum-inference-steps: 6\nseed: 5\ndevice: cpu\n")
    assert main([*words, path, "--pairs-per-image", "2"]) in (0, 1)
    kept = (out / CONFIG_FILE).read_text()
    written = yaml.safe_load(kept)
    assert (written["limit"], written["tools"], written["seed"], written["pairs-per-image"]) == (1, "add", 5, 2)
    settings = json.loads((out / "run.json").read_text())["settings"]
    assert (settings["seed"], settings["tools"], settings["pairs_per_image"]) == (5, ["add"], 2)
    assert main([*words, str(out / CONFIG_FILE), "--seed", "6"]) == 2
    assert "holds a run with another settings.seed" in capsys.readouterr().err
    assert main([*words, str(out / CONFIG_FILE)]) in (0, 1)
    assert (out / CONFIG_FILE).read_text() == kept
