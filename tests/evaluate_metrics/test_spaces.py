"""Tests of each metric's Space, loaded in clean processes without this package and the libraries of models."""

from __future__ import annotations

import ast
import configparser
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import evaluate
import pytest
import yaml
from huggingface_hub import metadata_load
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from evaluate_metrics import METRICS, metric_path
from evaluate_metrics.functional.citations import ARTIAGENT
from evaluate_metrics.functional.descriptions import inputs_description
from evaluate_metrics.functional.intervals import Bootstrap
from hub_cards.kinds.metric import metric_payload

from ..helpers.local_hub import LocalHub
from ..helpers.paths import ROOT


# Hides this package and the libraries that only models need.
WITHOUT = """
import sys

OURS = {"evaluate_metrics", "datasets_script", "diffusers_artifact", "hub_cards"}
HIDDEN = OURS | {"torch", "diffusers", "transformers"}

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Hiding, sys.meta_path)
"""
LOAD = """
import json, sys
import evaluate

print(json.dumps([evaluate.load(name).name for name in sys.argv[1:]]))
"""
COMPUTE = """
import json, sys
import evaluate

examples = json.loads(sys.argv[1])
metrics = {name: evaluate.load(f"tester/{name}") for name in examples}
results = {
    name: metric.compute(**examples[name], n_resamples=0)
    for name, metric in metrics.items()
    if name != "css"
}
print(json.dumps([[metric.name for metric in metrics.values()], results]))
"""
# Each Space has a process of its own; all are forked from one that has imported `evaluate`, which takes 2 s.
OPEN_PAGES = """
import os, sys
import evaluate

for name in sys.argv[1:]:
    process = os.fork()
    if process == 0:
        os.chdir(name)
        import space
        print(evaluate.load(f"{name}.py").name, flush=True)
        os._exit(0)
    if os.waitpid(process, 0)[1]:
        sys.exit(f"the page of {name} failed")
"""
# Distributions whose modules have another name.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "huggingface_hub": "huggingface-hub",
    "rouge_score": "rouge-score",
    "sentence_transformers": "sentence-transformers",
}


def load_clean(
    program: str, arguments: list[str], folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHONPATH"))}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env={**kept, **environment},
        capture_output=True,
        text=True,
    )


def space_files(name: str) -> dict[str, bytes]:
    return {file.path: file.read() for file in metric_payload(Path(metric_path(name)), f"tester/{name}").files}


def page_example(name: str) -> dict:
    """Read the example that the page of a Space shows first."""
    tree = ast.parse((Path(metric_path(name)) / "app.py").read_text())
    call = next(node for node in ast.walk(tree) if isinstance(node, ast.Call) and len(node.args) == 2)
    return ast.literal_eval(call.args[1])


def rounded(result: dict) -> str:
    """Write a result as text, so that NaN equals NaN; rounded, since processes may differ in the last digit."""
    return json.dumps(json.loads(json.dumps(result), parse_float=lambda digits: f"{float(digits):.12g}"))


@pytest.fixture
def copies(tmp_path) -> Path:
    """Copy the folders of the metrics into an otherwise empty folder."""
    for name in METRICS:
        shutil.copytree(metric_path(name), tmp_path / "copies" / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "copies"


def test_copies_of_the_folders_load_offline(copies, tmp_path):
    offline = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = load_clean(LOAD, [f"./{name}" for name in METRICS], copies, offline)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == list(METRICS)


def test_spaces_load_by_name_and_give_the_same_scores(tmp_path):
    (tmp_path / "empty").mkdir()
    examples = {name: page_example(name) for name in METRICS}
    # Maps are lists of lists, as the page gets them, since JSON has no arrays.
    with LocalHub() as hub:
        for name in METRICS:
            hub.create_repository("space", f"tester/{name}")
            hub.commit("space", f"tester/{name}", space_files(name), [])
        environment = hub.environment(tmp_path / "home")
        done = load_clean(WITHOUT + COMPUTE, [json.dumps(examples)], tmp_path / "empty", environment)
        assert done.returncode == 0, done.stderr
        assert any("/spaces/tester/miou/" in request for request in hub.requests)
    names, results = json.loads(done.stdout)
    assert names == list(METRICS) and set(results) == {*METRICS} - {"css"}
    for name, result in results.items():
        expected = evaluate.load(metric_path(name)).compute(**examples[name], n_resamples=0)
        for side in (result, expected):
            side["versions"].pop("artiagent", None)
        assert rounded(result) == rounded(expected), name


def test_the_pages_of_spaces_find_their_metrics(tmp_path):
    """Run the imports of each page and its `evaluate.load` from the root of the Space."""
    for name in METRICS:
        (tmp_path / name).mkdir()
        for path, content in space_files(name).items():
            (tmp_path / name / path).write_bytes(content)
        page = (tmp_path / name / "app.py").read_text()
        imports = re.findall(r"^from (\w+) import|^import (\w+)", page, re.MULTILINE)
        assert {first or second for first, second in imports} == {"evaluate", "space"}
    offline = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    done = load_clean(WITHOUT + OPEN_PAGES, list(METRICS), tmp_path, offline)
    assert (done.returncode, done.stdout.split()) == (0, list(METRICS)), done.stderr


@pytest.mark.parametrize("name", METRICS)
def test_a_space_installs_what_its_files_import(name):
    folder = Path(metric_path(name))
    front_matter = metadata_load(folder / "README.md") or {}
    assert (folder / front_matter["app_file"]).is_file()
    # A Space runs Python 3.10 unless its card asks for another version.
    assert front_matter["python_version"] in SpecifierSet(">=3.11")
    imported = {
        module.partition(".")[0]
        for path, content in space_files(name).items()
        if path.endswith(".py")
        for node in ast.walk(ast.parse(content))
        for module in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
    }
    # Gradio comes with the Space's `sdk`.
    needed = imported - sys.stdlib_module_names - {"gradio", "space"}
    requirements = {
        requirement.name: requirement
        for requirement in map(Requirement, (folder / "requirements.txt").read_text().splitlines())
    }
    assert set(requirements) == {DISTRIBUTIONS.get(module, module) for module in needed}
    assert not {"artiagent", "torch", "diffusers", "transformers"} & set(requirements)
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    for line in "\n".join([setup["options"]["install_requires"], extras["evaluate"], extras["css"]]).splitlines():
        if line and (ours := Requirement(line)).name in requirements:
            assert requirements[ours.name].specifier == ours.specifier


@pytest.mark.parametrize("name", METRICS)
def test_examples_of_a_space_load_it_from_there(name):
    files = space_files(name)
    for path in ("README.md", f"{name}.py"):
        text = files[path].decode()
        assert f'evaluate.load("tester/{name}")' in text and "metric_path" not in text


@pytest.mark.parametrize("name", METRICS)
def test_arguments_are_described_in_every_place(name):
    metric = evaluate.load(metric_path(name))
    card = (Path(metric_path(name)) / "README.md").read_text()
    parameters = inspect.signature(metric._compute).parameters
    described = re.search(r"Args:\n(.*?)\nReturns:", metric.inputs_description, re.DOTALL)
    assert described is not None
    entries = re.findall(r"^    (\w[\w, ]*) \(", described[1], re.MULTILINE)
    assert [entry for line in entries for entry in line.split(", ")] == list(parameters)
    for parameter in parameters.values():
        lines = [line for line in card.splitlines() if f"`{parameter.name}`" in line]
        assert lines, f"the card of {name} does not name `{parameter.name}`"
        if parameter.default not in (inspect.Parameter.empty, None):
            default = str(parameter.default)
            assert any(default in line or default.replace("e-0", "e-") in line for line in lines), parameter


@pytest.mark.parametrize("name", METRICS)
def test_a_card_cites_what_the_metric_cites(name):
    assert evaluate.load(metric_path(name)).citation in (Path(metric_path(name)) / "README.md").read_text()


def test_the_paper_is_cited_as_in_the_citation_file():
    reference = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"][0]
    flat = re.sub(r"[{}]|\s+", lambda found: "" if found[0] in "{}" else " ", ARTIAGENT)
    assert reference["title"] in flat
    for author in reference["authors"]:
        assert f"{author['family-names']}, {author['given-names']}" in flat


def test_a_description_takes_other_forms_and_the_settings_of_the_bootstrap():
    def score(predictions: list, references: list, bootstrap: Bootstrap | None = None) -> None:
        """
        Score.

        Args:
            predictions (`list`): Answers,
                as they are.
            references (`list`): Truth.
            bootstrap (`Bootstrap`, *optional*): How intervals are made.

        Returns:
            `dict`: The score.

        Raises:
            ValueError: no answer.
        """

    text = inputs_description(score, "    >>> 1\n    1", {"references": "references (`str`): A file."})
    assert text.startswith("\nArgs:\n    predictions (`list`): Answers,\n        as they are.\n    references (`str`)")
    assert "bootstrap (" not in text and "    seed (`int`, *optional*, defaults to 0)" in text
    assert text.endswith("Returns:\n    `dict`: The score.\n\nExamples:\n\n    >>> 1\n    1\n")
    with pytest.raises(ValueError, match="`load_clean` must have Args and Returns"):
        inputs_description(load_clean, "")
