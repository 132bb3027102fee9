"""The notebooks run from beginning to end, offline, at tiny size."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from .helpers.code_blocks import read_notebook
from .helpers.paths import ROOT


# For each notebook: tiny values of its parameters, and what holds at its end.
NOTEBOOKS = {
    "diffusers_artifact/notebooks/inject_one_artifact.ipynb": (
        "NUM_INFERENCE_STEPS = 1",
        """
assert difference.getbbox() and difference.size == photo.size
assert {kind for made in mappings for kind in made.types} == {"duplication", "omission", "distortion", "fusion"}
assert len(output.images) == len(masks) == 4 and len(output.reconstructions) == 1
""",
    ),
    "datasets_script/notebooks/from_photos_to_a_dataset.ipynb": (
        'PHOTOS, PAIRS_PER_IMAGE, NUM_INFERENCE_STEPS = ["cat.png"], 1, 8',
        """
assert len(pairs) == 1 and row["source_id"] == "cat.png" and len(labels) == 1
assert (out / "report.html").is_file() and findings
""",
    ),
    "evaluate_metrics/notebooks/score_a_model.ipynb": (
        "NUM_PAIRS, NUM_RESAMPLES = 20, 20",
        """
assert len({result["miou"] for result in model.values()}) == len(model) == 4
assert all(baseline[protocol]["miou"] < result["miou"] for protocol, result in model.items())
assert result["n"] == 40 and result["recall_by_type"]["duplication"] == result["recall"]
assert always_yes["accuracy"] == 0.5
""",
    ),
}


def test_every_notebook_is_tested():
    assert {path.relative_to(ROOT).as_posix() for path in ROOT.glob("*/notebooks/*")} == set(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_stored_without_outputs(name):
    notebook = read_notebook(ROOT / name)
    assert notebook["nbformat"] == 4
    assert notebook["cells"][0]["source"].startswith("# ")
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert [cell["metadata"].get("tags") for cell in code] == [["parameters"], *[None] * (len(code) - 1)]
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])


# One process for all, since importing takes longer than the rest; each has names and a folder of its own.
RUN = """
import json, os
for name, code in json.load(open("programs.json")).items():
    os.makedirs(name)
    os.chdir(name)
    exec(compile(code, name, "exec"), {"__name__": "__main__"})
    os.chdir(os.path.join(*[".."] * len(name.split("/"))))
"""


def test_notebooks_run(tmp_path):
    programs = {}
    for name, (tiny, end) in NOTEBOOKS.items():
        cells = read_notebook(ROOT / name)["cells"]
        parameters, *others = (cell["source"] for cell in cells if cell["cell_type"] == "code")
        defaults: dict[str, object] = {}
        replaced: dict[str, object] = {}
        exec(parameters, defaults)
        exec(tiny, replaced)
        assert replaced.keys() <= defaults.keys()
        programs[name] = "\n\n".join([parameters, tiny, *others, end])
    (tmp_path / "programs.json").write_text(json.dumps(programs))
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", RUN], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
