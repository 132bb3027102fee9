"""`synthesize` makes what the command makes, in one process or in several."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path
from typing import Any

import pytest

from datasets_script import synthesize
from datasets_script.agents.perception import PerceptionSpec
from datasets_script.cli.main import build_parser, main
from datasets_script.engine.ledger import read_rejected
from datasets_script.engine.plan import RunPlan
from datasets_script.engine.shards import RunMismatchError
from datasets_script.engine.workers import start_process, start_worker
from datasets_script.utils.errors import ArgumentError, StoppedError

from ...helpers.engine_runs import SOURCES, make_photos, rows


TWO = SOURCES[::2]
OPTIONS: dict[str, Any] = {"num_inference_steps": 6, "shard_size": 1, "max_rerolls": 0, "device": "cpu", "seed": 3}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("demo"), TWO)


WORDS = [text for name, value in OPTIONS.items() for text in (f"--{name.replace('_', '-')}", str(value))]


@pytest.fixture(scope="module")
def commanded(photos, tmp_path_factory) -> Path:
    """What the command makes."""
    out = tmp_path_factory.mktemp("commanded") / "out"
    assert main(["synthesize", str(photos), str(out), *WORDS]) == 0
    assert rows(out)
    return out


def test_several_processes_of_the_command_give_the_rows_of_one(photos, commanded, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["synthesize", str(photos), str(out), *WORDS, "--processes", "2"]) == 0
    assert rows(out) == rows(commanded)
    assert "pairs in" in capsys.readouterr().out


@pytest.mark.parametrize("processes", [1, 2])
def test_it_makes_the_rows_that_the_command_makes(photos, commanded, tmp_path, processes, capfd):
    out = synthesize(photos, tmp_path / "out", perception="annotations", processes=processes, **OPTIONS)
    assert out == tmp_path / "out" and rows(out) == rows(commanded)
    made, expected = (json.loads((folder / "run.json").read_text()) for folder in (out, commanded))
    assert made["fingerprint"] == expected["fingerprint"]
    told = capfd.readouterr().err
    assert "synthesize" in told  # the line of progress
    assert told.count("model: embedded, 256x256 px, on cpu in float32\npreset: embedded, 6 steps of fireflow\n") == 1
    assert "judge: image metrics with stlpips\nexplanations: templates\nphotos: 2, 1 pair(s) each, seed 3, to" in told


def test_files_by_name_give_the_rows_of_their_folder(photos, commanded, tmp_path, capfd):
    files = [str(photos / TWO[0])]
    out = synthesize(files, tmp_path / "out", perception=PerceptionSpec("annotations"), show_progress=False, **OPTIONS)
    assert rows(out) == [row for row in rows(commanded) if row["source_id"] == TWO[0]]
    assert rows(out) and "synthesize" not in capfd.readouterr().err


def test_a_run_is_continued_or_begun_beside_another(photos, commanded):
    again = synthesize(photos, commanded, perception="annotations", **OPTIONS)
    assert again == commanded
    other = OPTIONS | {"seed": 4}
    with pytest.raises(RunMismatchError, match="another settings.seed"):
        synthesize(photos, commanded, perception="annotations", **other)
    beside = synthesize(photos, commanded, perception="annotations", force_new=True, limit=1, **other)
    assert beside.name == "out-2" and {row["source_id"] for row in rows(beside)} <= {TWO[0]}


def test_a_run_that_makes_nothing_warns(photos, tmp_path, caplog):
    out = synthesize(photos, tmp_path / "out", perception="annotations", tools=["fuse"], limit=1, **OPTIONS)
    assert not rows(out) and list(read_rejected(out))
    assert "no pair was made; the reasons are in" in caplog.text


def test_workers_that_cannot_work_stop_the_call_and_the_command(photos, tmp_path):
    (tmp_path / "torn.json").write_text("{")
    torn: dict[str, Any] = {"perception": "annotations", "annotations": tmp_path / "torn.json", "processes": 2}
    with pytest.raises(StoppedError, match="a worker ended with exit status 2"):
        synthesize(photos, tmp_path / "out", **torn, **OPTIONS)
    options = ["--annotations", str(tmp_path / "torn.json"), "--processes", "2"]
    assert main(["synthesize", str(photos), str(tmp_path / "other"), *WORDS, *options]) == 2


def test_a_worker_on_a_device_that_is_not_there_fails(photos, tmp_path):
    plan = RunPlan(photos, tmp_path / "out", perception=PerceptionSpec("annotations"), device="cuda:9", processes=2)
    worker = start_worker(plan, 0, one_by_one=False)
    worker.join()
    assert worker.exitcode == 2


def write_colour(path: Path) -> None:
    path.write_text(os.environ["COLOUR"])


def test_workers_have_the_environment_of_their_moment(tmp_path, monkeypatch):
    for colour in ("red", "green"):
        monkeypatch.setenv("COLOUR", colour)
        process = start_process("cpu", write_colour, tmp_path / colour)
        process.join()
        assert process.exitcode == 0 and (tmp_path / colour).read_text() == colour


@pytest.mark.parametrize(
    "given, options, message",
    [
        ([], {}, "`photos` must be a folder or files, got an empty list"),
        (["nowhere.png"], {}, "`photos` must be a folder or existing files, got .*nowhere.png"),
        (
            None,
            {"annotations": "a.json"},
            "`perception` must be 'annotations' if `annotations` is given, got 'people'",
        ),
        (
            None,
            {"annotations": "a.json", "perception": PerceptionSpec("annotations")},
            "`annotations` must be an argument of the PerceptionSpec .*, got 'a.json'",
        ),
        (None, {"perception": "sam3"}, "`perception` sam3 needs `vlm`"),
        (None, {"confine": "walls"}, "`confine` must be among"),
    ],
)
def test_mistakes_name_the_argument(photos, tmp_path, given, options, message):
    with pytest.raises(ArgumentError, match=message):
        synthesize(photos if given is None else given, tmp_path / "out", **options)


def test_arguments_and_options_have_the_same_defaults(monkeypatch):
    defaults = vars(build_parser().parse_args(["synthesize", "photos", "out"]))
    arguments = {
        name: parameter.default
        for name, parameter in inspect.signature(synthesize).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in ("perception", "show_progress")
    }
    assert arguments == {name: defaults[name] for name in arguments}
