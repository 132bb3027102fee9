"""The three ways of `load_dataset("artibench")`, in clean processes, and the command and cards around them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from datasets import packaged_modules

from datasets_script.benchmarks.base import BenchmarkError
from datasets_script.benchmarks.card import render_card
from datasets_script.benchmarks.loading import load_benchmark, load_sizes
from datasets_script.benchmarks.prepare import prepare, prepare_folder
from datasets_script.benchmarks.registry import BENCHMARKS, get_benchmark, get_builder
from datasets_script.cli.main import build_parser
from datasets_script.utils.errors import UserError

from ...helpers.benchmark_sources import artibench_row, picture, write_artibench
from ...helpers.local_hub import LocalHub
from ...helpers.paths import ROOT


CARDS = ROOT / "hub_cards" / "datasets"

# Prints what `load_dataset` gives, for the tests to compare.
DESCRIBE = """
import json, sys
from datasets import load_dataset

def describe(rows):
    rows = list(rows)
    first = rows[1]
    return [len(rows), first["id"], first["regions"][0]["bbox"], first["regions"][0]["class"], first["image"].size]

def show(**results):
    print(json.dumps(results))
"""
EXPECTED = [1000, "0001", [2.0, 1.0, 6.0, 5.0], "distortion", [8, 10]]


def run_clean(code: str, folder: Path, home: Path, package: bool, **environment: str) -> dict:
    """What `code` prints last, run in an empty `folder` by a process that knows this package only if `package`."""
    folder.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHONPATH"))}
    paths = {"PYTHONPATH": str(ROOT)} if package else {}
    done = subprocess.run(
        [sys.executable, "-c", DESCRIBE + code],
        cwd=folder,
        # `datasets` would import torch for its streams, and use none of it here.
        env={**kept, **paths, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "USE_TORCH": "0", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not list(folder.iterdir())
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """ArtiBench whole, with images of 8 × 10 pixels."""
    rows = [artibench_row(number) for number in range(1000)]
    for number, row in enumerate(rows):
        row["image"] = {"bytes": picture(number, (8, 10)), "path": None}
    return write_artibench(tmp_path_factory.mktemp("artibench"), rows)


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "artibench"
    prepare_folder("artibench", str(source), out)
    return out


@pytest.fixture(scope="module")
def home(source, tmp_path_factory) -> Path:
    """Where a process has prepared ArtiBench under its name, from the Hub."""
    files = {path.relative_to(source).as_posix(): path.read_bytes() for path in source.rglob("*.parquet")}
    files["images/0000.png"] = b"not to be fetched"
    folder = tmp_path_factory.mktemp("prepared-by-name")
    code = """
from datasets_script.benchmarks.prepare import prepare
builder = prepare("artibench", "KRAFTON/ArtiBench", num_proc=2)
try:
    prepare("artibench", "KRAFTON/Nothing")
except Exception as error:
    missing = type(error).__name__ + ": " + str(error)
show(images=builder.info.splits["test"].num_examples, missing=missing)
"""
    with LocalHub() as hub:
        hub.create_repository("dataset", "KRAFTON/ArtiBench")
        hub.commit("dataset", "KRAFTON/ArtiBench", files, ())
        shown = run_clean(code, folder / "empty", folder / "home", True, **hub.environment(folder / "home"))
    assert shown["images"] == 1000
    assert not list(folder.rglob("0000.png"))
    assert shown["missing"].startswith("BenchmarkError: `source` must be a folder, or a dataset on the Hub")
    assert "hf download KRAFTON/ArtiBench" in shown["missing"]
    return folder / "home"


def test_what_was_prepared_is_loaded_by_its_bare_name(home, tmp_path):
    code = """
assert "datasets_script" not in sys.modules
show(
    whole=describe(load_dataset("artibench")["test"]),
    part=[row["id"] for row in load_dataset("artibench", split="test[10:12]")],
)
"""
    shown = run_clean(code, tmp_path / "empty", home, False)
    assert shown == {"whole": EXPECTED, "part": ["0010", "0011"]}


def test_a_prepared_folder_is_loaded_from_the_hub(folder, home, tmp_path):
    code = f"""
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("tester/artibench", repo_type="dataset")
api.upload_folder(repo_id="tester/artibench", repo_type="dataset", folder_path={str(folder)!r})
show(
    whole=describe(load_dataset("tester/artibench")["test"]),
    streamed=describe(load_dataset("tester/artibench", split="test", streaming=True)),
    part=[row["id"] for row in load_dataset("tester/artibench", split="test[10:12]")],
    bare_name=describe(load_dataset("artibench", split="test", streaming=True)),
)
"""
    with LocalHub() as hub:
        shown = run_clean(code, tmp_path / "empty", home, False, **hub.environment(home))
        assert set(hub.files("dataset", "tester/artibench")) >= {"README.md", "skipped.jsonl"}
    assert shown == {"whole": EXPECTED, "streamed": EXPECTED, "part": ["0010", "0011"], "bare_name": EXPECTED}


def test_registered_names_take_a_source(source, tmp_path):
    code = f"""
import datasets_script
assert "datasets" in sys.modules and "datasets_script.benchmarks" not in sys.modules
sys.modules["diffusers"] = None  # takes ten seconds to import
datasets_script.register()
datasets_script.register()

def message(**options):
    try:
        load_dataset("artibench", **options)
    except Exception as error:
        return type(error).__name__ + ": " + str(error)

source = {str(source)!r}
show(
    missing=message(),
    whole=describe(load_dataset("artibench", source=source, num_proc=2)["test"]),
    streamed=describe(load_dataset("artibench", source=source, split="test", streaming=True)),
    part=[row["id"] for row in load_dataset("artibench", source=source, split="test[10:12]")],
    unknown_split=message(source=source, split="train"),
    csv=load_dataset("csv", data_files={str(tmp_path / "a.csv")!r}, split="train").to_list(),
)
"""
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    shown = run_clean(code, tmp_path / "empty", tmp_path / "home", True)
    assert shown.pop("missing").startswith(
        "BenchmarkError: `source` must be a folder with the files of artibench, got none\n\nFetch"
    )
    assert "Unknown split \"train\". Should be one of ['test']" in shown.pop("unknown_split")
    assert shown == {
        "whole": EXPECTED,
        "streamed": EXPECTED,
        "part": ["0010", "0011"],
        "csv": [{"a": 1, "b": 2}],
    }


def test_the_private_parts_that_register_changes_are_where_they_were():
    assert datasets.load._PACKAGED_DATASETS_MODULES is packaged_modules._PACKAGED_DATASETS_MODULES
    name, digest = packaged_modules._PACKAGED_DATASETS_MODULES["csv"]
    assert name == "datasets.packaged_modules.csv.csv" and isinstance(digest, str)
    assert datasets.load.PackagedDatasetModuleFactory("csv").name == "csv"
    module = datasets.load.DatasetModule("a.module", "a hash", {})
    assert (module.module_path, module.hash, module.builder_kwargs) == ("a.module", "a hash", {})


def test_a_folder_is_whole_or_not_there(source, tmp_path):
    partial = write_artibench(tmp_path / "partial", [artibench_row(0), artibench_row(1)])
    with pytest.raises(BenchmarkError):
        prepare_folder("artibench", str(partial), tmp_path / "out" / "artibench")
    assert not list(tmp_path.glob("out/*"))
    with pytest.raises(FileExistsError):
        prepare_folder("artibench", str(source), tmp_path)


def test_prepared_anew_from_another_source_the_name_gives_that(tmp_path):
    for numbers in (range(4), range(2, 5)):
        rows = [artibench_row(number) for number in numbers]
        prepare("artibench", str(write_artibench(tmp_path / str(numbers), rows)), allow_partial=True)
        assert [image.id for image in load_benchmark("artibench")] == [row["id"] for row in rows]


def test_load_benchmark_streams_images_as_published(folder, source):
    images = load_benchmark(folder)
    assert next(images).id == "0000"
    second = next(images)
    assert second.image == picture(1, (8, 10))
    assert second.regions[0].bbox == (2.0, 1.0, 6.0, 5.0)
    with pytest.raises(BenchmarkError, match="`split` must be one of test for .*, got 'train'"):
        next(load_benchmark(folder, "train"))


def test_sizes_are_those_of_the_images_in_their_order(folder):
    sizes = load_sizes(folder)
    assert list(sizes.items()) == [(image.id, image.size) for image in load_benchmark(folder)] and sizes
    with pytest.raises(BenchmarkError, match="`split` must be one of"):
        load_sizes(folder, "train")


def test_load_benchmark_tells_how_to_prepare():
    with pytest.raises(BenchmarkError, match="(?s)artiagent prepare richhf --source DIR.*git clone"):
        next(load_benchmark("richhf"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_tells_of_itself_and_has_its_card(name):
    benchmark = get_benchmark(name)
    assert benchmark.name == name == get_builder(name).benchmark.name
    assert benchmark.splits and benchmark.homepage.startswith("https://")
    assert benchmark.instructions and benchmark.license and benchmark.citation.startswith("@")
    assert (CARDS / f"{name}.md").read_text(encoding="utf-8") == render_card(benchmark)


def test_names_that_are_not_there():
    with pytest.raises(ValueError, match="`name` must be one of artiagent, artibench, .*, got 'imagenet'"):
        get_builder("imagenet")
    with pytest.raises(ValueError, match="`name` must be one of artibench, .*, got 'artiagent'"):
        get_benchmark("artiagent")


# The command


def run_command(*arguments: str) -> int:
    parser = build_parser()
    args = parser.parse_args(["prepare", *arguments])
    return args.run(args)


def test_the_command_writes_a_folder_and_reports(tmp_path, capsys):
    rows = [artibench_row(number) for number in range(6)]
    rows[5]["image"] = None
    source = write_artibench(tmp_path / "source", rows)
    out = tmp_path / "artibench"
    assert run_command("artibench", "--source", str(source), "--out", str(out), "--allow-partial") == 0
    printed = capsys.readouterr().out
    assert "test: 5 images, 2 with artifacts, 3 without\n" in printed
    assert "differs from the publication: 1000 images are published, 5 could be read, 1 records" in printed
    assert "1 left out: 1 × the row holds no image (0005)" in printed
    assert json.loads((out / "skipped.jsonl").read_text())["id"] == "0005"
    assert len(datasets.load_dataset(str(out), split="test")) == 5
    with pytest.raises(UserError, match="--out must be a folder that does not exist yet"):
        run_command("artibench", "--source", str(source), "--out", str(out))


def test_the_command_lists_benchmarks_and_tells_what_to_fetch(capsys):
    assert run_command() == 0
    printed = capsys.readouterr().out
    assert all(any(line.startswith(name) for line in printed.splitlines()) for name in BENCHMARKS)
    assert "cc-by-nc-4.0" in printed
    assert run_command("artibench") == 2
    assert "hf download KRAFTON/ArtiBench" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["artibench", "--source", "/nowhere"], "`source` must be a folder, got '/nowhere'"),
        (["artibench", "--source", ".", "--num-proc", "0"], "--num-proc must be at least 1, got 0"),
        (["artibench", "--source", ".", "--split", "val"], "`splits` must be among test for artibench, got 'val'"),
        (["artibench", "--config", "vqa"], "--config must only be given with artiagent, got it with artibench"),
        (["artiagent", "--source", ".", "--config", "all"], "--config must be one of pairs, images, vqa, masks"),
        (
            ["artiagent", "--source", ".", "--split", "x"],
            "--split must only be given with a benchmark, got it with artiagent",
        ),
        (["artiagent", "--source", ".", "--out", "."], "--out must be a folder that does not exist yet"),
        (["artiagent", "--source", ".", "--out", "x"], "holds no run.json"),
        (["artiagent"], "--source must be a folder written by `artiagent synthesize`, got none"),
    ],
)
def test_mistakes_are_told_in_a_line(arguments, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        run_command(*arguments)
