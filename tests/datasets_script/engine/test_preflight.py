"""What is wrong with a plan is told before the first byte of weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from datasets_script.agents.curation.perceptual import PerceptualMetricUnavailable
from datasets_script.agents.perception import PerceptionSpec
from datasets_script.cli.main import main
from datasets_script.engine.plan import RunPlan
from datasets_script.engine.shards import RunMismatchError
from datasets_script.schema.run_record import RunRecord
from datasets_script.utils.errors import ArgumentError, UserError
from datasets_script.utils.hub_access import HubModel, check_room, free_bytes, look_up

from ...helpers.engine_runs import SETTINGS, SOURCES, make_photos, make_run
from ...helpers.local_hub import LocalHub
from ...helpers.paths import ROOT


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("demo"), SOURCES[:1])


def plan_of(photos: Path, out: Path, **changes) -> RunPlan:
    return replace(RunPlan(photos, out, SETTINGS, PerceptionSpec("annotations"), device="cpu"), **changes)


def test_a_folder_that_cannot_be_made_is_told(photos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError, match="`out` must be a folder, got .*, of which .*file' is no folder"):
        plan_of(photos, tmp_path / "file" / "out").check()


def test_a_run_with_another_seed_is_refused_without_loading_a_model(photos, tmp_path):
    make_run(photos, tmp_path, sources=SOURCES[:1]).execute(show_progress=False)
    plan_of(photos, tmp_path).check()
    gone = replace(SETTINGS, seed=1, model="no/such-model", max_artifacts=1)
    with pytest.raises(RunMismatchError, match="another settings.max_artifacts, settings.model, settings.seed; give"):
        plan_of(photos, tmp_path, settings=gone).check()
    record = RunRecord.read(tmp_path)
    assert record.settings["loading"]["dtype"] == "float32", "which the plan leaves open"


def test_a_metric_without_its_package_is_refused(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets_script.agents.curation.perceptual.find_spec", lambda name: None)
    with pytest.raises(PerceptualMetricUnavailable, match=r"'stlpips' needs the package stlpips_pytorch: pip install"):
        plan_of(photos, tmp_path / "out").check()


def test_malformed_annotations_are_told_before_the_vlm_is_loaded(photos, tmp_path, capsys):
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    words = ["--annotations", str(broken), "--vlm", str(tmp_path), "--device", "cpu"]
    assert main(["synthesize", str(photos), str(tmp_path / "out"), *words]) == 2
    assert "broken.json" in capsys.readouterr().err


SCRIPT = """
import json, logging, sys
from datasets_script.utils.errors import UserError
from datasets_script.utils.hub_access import look_up
from datasets_script.engine import preflight

logging.basicConfig(stream=sys.stdout, format="warning: %(message)s")
for model in sys.argv[1:]:
    try:
        found = look_up("model", model)
        preflight._warn_of_licenses([found])
        print(json.dumps([found.license, found.missing_bytes]))
    except UserError as error:
        print(error)
"""


def test_access_licence_and_size_are_known_before_a_download(tmp_path):
    weights = {
        "transformer/a.safetensors": b"x" * 1000,
        "vae/b.safetensors": b"x" * 10,
        "whole.safetensors": b"x" * 99,
    }
    other = {"vae/b.fp16.safetensors": b"x" * 5, "model_index.json": b"{}"}
    card = b"---\nlicense: other\nlicense_name: dev-non-commercial-license\n---\n"
    with LocalHub() as hub:
        for name, files in {
            "lab/open": {"model.safetensors": b"x" * 7, "README.md": b"---\nlicense: mit\n---\n"},
            "lab/licensed": {**weights, **other, "README.md": card},
            "lab/gated": {**weights, **other, "README.md": card},
        }.items():
            hub.create_repository("model", name)
            hub.commit("model", name, files, ())
        hub.gated.add(("model", "lab/gated"))
        command = [sys.executable, "-c", SCRIPT, "lab/open", "lab/licensed", "lab/gated", "lab/none"]
        environment = {**os.environ, **hub.environment(tmp_path), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        downloads = [request for request in hub.requests if "/resolve/" in request]
    lines = done.stdout.splitlines()
    assert json.loads(lines[0]) == ["mit", 7]
    assert "warning: lab/licensed is published under 'dev-non-commercial-license', which does not allow" in lines[1]
    assert json.loads(lines[2]) == ["dev-non-commercial-license", 1010]
    assert f"`model` lab/gated is gated: accept its licence at {hub.url}/lab/gated, run `hf auth login`" in lines[3]
    assert "`model` must be a folder or a repository on the Hub, found no lab/none at" in lines[4]
    assert not downloads


def test_nothing_is_asked_of_folders_and_offline(tmp_path):
    assert look_up("model", str(tmp_path)) is None and look_up("model", "lab/open") is None


def test_a_hub_that_does_not_answer_is_left_to_the_cache(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert look_up("model", "lab/open") is None


def test_weights_that_do_not_fit_on_the_disk_are_refused(tmp_path):
    check_room([HubModel("lab/small", "mit", 1)])
    with pytest.raises(UserError, match="the weights of lab/large take .* GB, but .* has room for .* set HF_HOME"):
        check_room([HubModel("lab/large", "mit", 10**18)])
    assert free_bytes(tmp_path / "not" / "there") == pytest.approx(free_bytes(tmp_path), rel=0.1)


@pytest.mark.parametrize(
    "name, expected", [("flux-1-dev-non-commercial-license", True), ("cc-by-nc-4.0", True), ("apache-2.0", False)]
)
def test_licences_that_forbid_commercial_use_are_told_by_name(name, expected):
    assert HubModel("lab/model", name, 0).is_non_commercial is expected
