"""Runs whose judge and author is a model behind a real server, also when that server fails."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from datasets_script.engine.ledger import read_rejected
from datasets_script.engine.run import RunAborted
from datasets_script.pairs.storage import read_pairs
from datasets_script.vlm import CachedVLM, EndpointVLM, VLMUnavailable

from ...helpers.engine_runs import SETTINGS, SOURCES, make_run, rows


# Several artifacts an image of all kinds, so that every question is asked.
VLM_SETTINGS = replace(SETTINGS, pairs_per_image=1, max_artifacts=3, max_target_share=1.0, max_rerolls=0)


def vlm_at(url: str, talking: Path, **options) -> EndpointVLM:
    return EndpointVLM(str(talking), url, **{"base_delay": 0.01, "max_retries": 6, "max_concurrency": 2, **options})


def run_with(vlm, photos, out, injector, **options):
    run = make_run(photos, out, injector, VLM_SETTINGS, vlm=vlm, perception_batch_size=2, **options)
    return run.execute(show_progress=False)


@pytest.fixture(scope="module")
def whole(photos, injector, server, talking, tmp_path_factory) -> Path:
    """A run without faults."""
    out = tmp_path_factory.mktemp("whole")
    run_with(vlm_at(server, talking), photos, out, injector)
    return out


def test_the_model_judges_and_explains_and_is_counted(whole, talking):
    run, pairs = json.loads((whole / "run.json").read_text()), list(read_pairs(whole))
    assert pairs and {pair.explanation_source for pair in pairs} == {str(talking)}
    assert {pair.clean_description for pair in pairs} == {"A whole thing, as it should be."}
    assert {pair.explanation for pair in pairs} == {"The image has an artifact. It cannot be real."}
    artifacts = [artifact for pair in pairs for artifact in pair.artifacts]
    assert {artifact.label for artifact in artifacts} == {"one too many"}
    judged = [artifact for artifact in artifacts if artifact.type != "distortion"]
    assert judged and all(artifact.scores["vlm_has_artifact"] == 1.0 for artifact in judged)
    # This model sees no fusion.
    assert run["accepted"].get("fusion", 0) == 0 < run["made"]["fusion"]
    assert any("the triplet check found no fusion" in entry["reason"] for entry in read_rejected(whole))
    assert run["vlm_requests"] > len(artifacts) and run["vlm_completion_tokens"] > 0 and run["vlm_failures"] == 0
    assert run["curation"]["vlm"]["model"] == str(talking)


def test_passing_faults_change_nothing(photos, injector, proxy, talking, whole, tmp_path, request):
    chance = random.Random(1)
    count = 200 if request.config.getoption("--full-faults") else 30
    drawn = [chance.choice(["pass", "hang_up", "429", "500"]) for _ in range(count)]
    # Never so many in a row that the server counts as gone.
    faults = ["prose", *(fault if index % 4 else "pass" for index, fault in enumerate(drawn))]
    run = run_with(vlm_at(proxy.reset(*faults).base_url, talking, max_concurrency=1), photos, tmp_path, injector)
    assert rows(tmp_path) == rows(whole) and run.counters["vlm_retries"] > 0 and run.counters["vlm_repairs"] > 0


@pytest.mark.parametrize("fault", ["hang_up", "500", "401"])
def test_a_server_that_goes_away_stops_the_run_which_can_be_continued(
    photos,
    injector,
    proxy,
    talking,
    whole,
    tmp_path,
    fault,
):
    vlm = vlm_at(proxy.reset(*["pass"] * 12, always=fault).base_url, talking, max_retries=2)
    with pytest.raises(VLMUnavailable):
        run_with(vlm, photos, tmp_path, injector)
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "running"
    assert not list(tmp_path.rglob("*.incomplete"))
    run_with(vlm_at(proxy.reset().base_url, talking), photos, tmp_path, injector)
    assert rows(tmp_path) == rows(whole)


def test_an_interrupted_run_asks_nothing_twice(photos, injector, proxy, talking, whole, tmp_path):
    cache, out = tmp_path / "cache", tmp_path / "out"
    first = CachedVLM(vlm_at(proxy.reset(*["pass"] * 12, always="401").base_url, talking, max_concurrency=1), cache)
    with pytest.raises(VLMUnavailable):
        run_with(first, photos, out, injector)
    asked = len(list(cache.rglob("*.json")))
    second = CachedVLM(vlm_at(proxy.reset().base_url, talking), cache)
    run = run_with(second, photos, out, injector)
    assert rows(out) == rows(whole) and asked > 0 and run.counters["vlm_cache_hits"] > 0
    total = json.loads((whole / "run.json").read_text())["vlm_requests"]
    assert asked + len(proxy.requests) <= total
    again = CachedVLM(vlm_at(proxy.reset(always="500").base_url, talking), cache)
    run_with(again, photos, tmp_path / "again", injector)
    assert rows(tmp_path / "again") == rows(whole) and not proxy.requests


@pytest.mark.parametrize("fault", ["wrong_schema", "huge", "html", "empty"])
def test_answers_that_stay_bad_cost_their_artifact_and_are_kept(
    photos,
    injector,
    proxy,
    talking,
    tmp_path,
    fault,
):
    vlm = vlm_at(proxy.reset(always=fault).base_url, talking)
    run = run_with(vlm, photos, tmp_path, injector, sources=SOURCES[:1])
    failures = [entry for entry in read_rejected(tmp_path) if entry["stage"] in ("curation", "explain")]
    assert run.pairs == 0 and failures
    assert all("no usable" in entry["reason"] for entry in failures)
    assert all(len(entry["raw"]) <= 4000 for entry in failures) and (fault == "empty" or failures[0]["raw"])


def test_a_model_that_never_gives_a_usable_answer_stops_the_run(
    photos,
    injector,
    proxy,
    talking,
    tmp_path,
    monkeypatch,
):
    monkeypatch.setattr("datasets_script.engine.run.MAX_FAILURES_IN_A_ROW", 2)
    vlm = vlm_at(proxy.reset(always="prose").base_url, talking)
    with pytest.raises(RunAborted, match="2 photos in a row failed, the last with 'no usable"):
        run_with(vlm, photos, tmp_path, injector)
