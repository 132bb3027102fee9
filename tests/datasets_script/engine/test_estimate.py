"""What a run will take, from a few photos or from its settings alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from datasets_script.agents.perception import PerceptionSpec
from datasets_script.cli.main import main
from datasets_script.engine.estimate import Estimate, estimate, estimate_text
from datasets_script.engine.plan import RunPlan
from datasets_script.engine.settings import InjectionSettings
from datasets_script.vlm.spec import VLMSpec

from ...helpers.engine_runs import SETTINGS


pytestmark = pytest.mark.usefixtures("small_models")


def plan_of(photos: Path, out: Path, **changes) -> RunPlan:
    return replace(RunPlan(photos, out, SETTINGS, PerceptionSpec("annotations"), device="cpu"), **changes)


def test_evaluations_and_bytes_are_those_of_the_run_and_nothing_is_written(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets_script.engine.estimate.MIN_PHOTOS", 3)
    monkeypatch.setattr("datasets_script.engine.estimate.MIN_SECONDS", 0.0)
    plan = plan_of(photos, tmp_path / "out")
    found = estimate(plan)
    assert not (tmp_path / "out").exists()
    assert (found.photos, found.timed, found.device) == (3, 3, "cpu")
    run = plan.open().execute(show_progress=False)
    assert found.evaluations == run.counters["num_function_evaluations"] > 0
    written = sum(path.stat().st_size for path in (tmp_path / "out" / "data").iterdir())
    assert found.disk_bytes == pytest.approx(written, rel=0.1)
    assert found.seconds and found.seconds > found.loading_seconds > 0
    assert {"perceive", "inject", "judge", "explain"} <= found.seconds_of_phase.keys() and not found.peak_bytes


def test_without_a_gpu_a_large_model_is_estimated_from_the_settings(photos, tmp_path):
    settings = replace(
        SETTINGS, model=str(tmp_path), pairs_per_image=3, injection=InjectionSettings(num_inference_steps=25)
    )
    vlm = VLMSpec("a/model", endpoint="http://localhost:1/v1")
    found = estimate(plan_of(photos, tmp_path / "out", settings=settings, vlm=vlm))
    # FireFlow takes 26 evaluations; the inversion has one row, denoising four.
    assert found.evaluations == 3 * 26 * 5 and found.seconds is None and found.timed == 0
    # Two artifacts at most, 1.5 on average: a description, and for each of three pairs a summary and two each.
    assert found.vlm["requests"] == 3 * (1 + 3 * (1 + 2 * 1.5))
    text = estimate_text(found, "a model")
    assert "none tried: from the settings alone" in text and "unknown without a GPU" in text


def test_the_text_names_what_is_known():
    found = Estimate(
        photos=40,
        timed=2,
        device="cuda",
        evaluations=1234.4,
        disk_bytes=2e9,
        seconds=7200.0,
        loading_seconds=30.0,
        seconds_of_phase={"inject": 1.5},
        peak_bytes={"perceive": 2**30, "inject": 5 * 2**29},
        vlm={"requests": 240.0, "prompt_tokens": 9000.0},
    )
    assert estimate_text(found, "FLUX").splitlines() == [
        "estimate for 40 photos, FLUX on cuda (2 tried)",
        "  evaluations      1,234",
        "  time             2.0 h, of which 30 s for loading",
        "  seconds a photo  inject 1.50",
        "  GiB on the card  2.5 at its peak: perceive 1.0, inject 2.5",
        "  on disk          2.0 GB",
        "  VLM              requests 240, prompt tokens 9,000",
    ]


def test_the_command_prints_an_estimate(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("datasets_script.engine.estimate.MIN_SECONDS", 0.0)
    arguments = ["synthesize", str(photos), str(tmp_path / "out"), "--estimate", "--device", "cpu"]
    assert main([*arguments, "--num-inference-steps", "2"]) == 0
    assert "estimate for 3 photos, embedded on cpu (2 tried)" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
