"""A run before its models are loaded: it travels between processes, and what is wrong with it is told at once."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datasets_script.agents.perception import BACKENDS, PerceptionSpec
from datasets_script.engine.ledger import marker, read_rejected
from datasets_script.engine.plan import RunPlan
from datasets_script.engine.settings import InjectionSettings, RunSettings
from datasets_script.utils.errors import ArgumentError, UserError
from datasets_script.utils.files import write_json
from datasets_script.vlm.spec import VLMSpec

from ...helpers.engine_runs import SETTINGS, SOURCES, make_photos, make_run, rows
from ...helpers.tiny_detectors import red_detector


ONE = SOURCES[1:2]
pytestmark = pytest.mark.usefixtures("small_models")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("demo"), ONE)


def plan_of(photos: Path, out: Path, **changes) -> RunPlan:
    return replace(RunPlan(photos, out, SETTINGS, PerceptionSpec("annotations"), device="cpu"), **changes)


def test_a_plan_that_was_pickled_opens_the_run_that_its_parts_make(photos, tmp_path):
    plan = plan_of(photos, tmp_path / "planned", vlm=VLMSpec("some/model", endpoint="http://localhost:1/v1"))
    travelled = pickle.loads(pickle.dumps(plan))
    assert travelled == plan
    replace(travelled, vlm=None).open().execute(show_progress=False)
    whole = make_run(photos, tmp_path / "whole", sources=ONE).execute(show_progress=False)
    assert rows(tmp_path / "planned") == rows(tmp_path / "whole") and rows(tmp_path / "whole")
    # What identifies a run does not depend on how it was opened, so that runs of before continue.
    assert json.loads((tmp_path / "planned" / "run.json").read_text())["fingerprint"] == whole.fingerprint


def test_the_photos_are_the_files_of_the_folder_but_for_the_annotations(photos, tmp_path):
    assert plan_of(photos, tmp_path / "out").check() == ONE
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_bytes((photos / "annotations.json").read_bytes())
    named = plan_of(photos, tmp_path / "out", perception=PerceptionSpec("annotations", elsewhere))
    assert named.check() == ["annotations.json", *ONE]
    assert plan_of(photos, tmp_path / "out", names=tuple(ONE)).check() == ONE


def test_a_limit_counts_photos_that_have_vanished_since_the_run_began(photos, tmp_path):
    (tmp_path / "sources.jsonl").write_text('{"source_id": "a_vanished.png"}\n')
    write_json(marker(tmp_path, 0), {"pairs": 0})
    assert plan_of(photos, tmp_path, limit=1).check() == ["a_vanished.png"]


def test_a_run_beside_others_takes_the_first_free_name(tmp_path):
    plan = plan_of(tmp_path, tmp_path / "out")
    assert plan.beside_existing().out == (tmp_path / "out").resolve()
    for taken in ("out", "out-2"):
        (tmp_path / taken).mkdir()
    (tmp_path / "out" / "run.json").touch()
    assert plan.beside_existing().out.name == "out-3"


def test_paths_are_made_absolute_for_processes_that_begin_elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    plan = RunPlan(
        Path("photos"), Path("out"), perception=PerceptionSpec("annotations", Path("a.json")), vlm=VLMSpec("m")
    )
    absolute = replace(plan, vlm=VLMSpec("m", cache=Path("answers"))).absolute()
    assert (absolute.source, absolute.out) == (tmp_path / "photos", tmp_path / "out")
    assert absolute.perception.annotations == tmp_path / "a.json"
    assert absolute.vlm and absolute.vlm.cache == tmp_path / "answers"
    assert plan.absolute().vlm == plan.vlm


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"source": Path("nowhere")}, "`source` must be a folder of photos, got 'nowhere'"),
        ({"processes": 0}, "`processes` must be at least 1, got 0"),
        ({"limit": 0}, "`limit` must be at least 1, got 0"),
        ({"perception_batch_size": 0}, "`perception_batch_size` must be at least 1"),
        ({"offload": "away"}, "`offload` must be among none, model, group, sequential, got 'away'"),
        ({"perception": PerceptionSpec("sam3")}, "`perception` sam3 needs `vlm`"),
        ({"perception": PerceptionSpec("annotations", Path("none.json"))}, "`annotations` must be a file"),
    ],
)
def test_what_is_wrong_is_told_before_a_model_is_loaded(photos, tmp_path, changes, message):
    with pytest.raises(ArgumentError, match=message):
        plan_of(photos, tmp_path / "out", **changes).check()
    assert not (tmp_path / "out").exists()


def test_settings_that_cannot_be_used_are_refused_when_they_are_made():
    for options, message in (
        ({"tools": ("add", "melt")}, "`tools` must be among add, remove, distort, fuse, got 'melt'"),
        ({"tools": ()}, "`tools` must be among"),
        ({"max_artifacts": 0}, "`max_artifacts` must be at least 1, got 0"),
        ({"max_rerolls": -1}, "`max_rerolls` must be at least 0, got -1"),
        ({"max_long_side": 64}, "`max_long_side` must be at least 480, got 64"),
        ({"balance": "luck"}, "`balance` must be among sample, shard, got 'luck'"),
    ):
        with pytest.raises(ArgumentError, match=message):
            RunSettings(**options)
    injection: dict[str, Any]
    for injection, message in (
        ({"num_inference_steps": 0}, "`num_inference_steps` must be at least 1, got 0"),
        ({"preset": "bold"}, "`preset` must be among auto, .*, got 'bold'"),
        ({"solver": "magic"}, "`solver` must be among .*fireflow.*, got 'magic'"),
        ({"value_source": "air"}, "`value_source` must be among reconstruction, inversion, got 'air'"),
        (
            {"preset": "as-released", "value_source": "reconstruction"},
            "`value_source` must be inversion .* leave it out",
        ),
        ({"preset": "as-released", "hold_background": True}, "`hold_background` must be False with .* inversion"),
        ({"compute": "half"}, "`compute` must be among target, full, got 'half'"),
        ({"confine": "walls"}, "`confine` must be among none, latent, pixel, visible, got 'walls'"),
    ):
        with pytest.raises(ArgumentError, match=message):
            InjectionSettings(**injection)
    with pytest.raises(UserError, match="the endpoint must begin with http:// or https://, got 'localhost'"):
        VLMSpec("model", endpoint="localhost")


def test_every_listed_backend_is_a_file_with_a_loader(photos):
    from importlib import import_module

    for backend in BACKENDS.values():
        module = import_module(f"datasets_script.agents.perception.{backend.module}")
        assert callable(module.load) and backend.help
    assert PerceptionSpec("annotations").load(photos).identity()["backend"] == "annotations"
    with pytest.raises(ArgumentError, match="`perception` must be among annotations, people, grounded-sam, sam3"):
        PerceptionSpec("eyes")


def test_a_worker_takes_one_photo_at_a_time_after_a_fault(photos, tmp_path):
    plan = plan_of(photos, tmp_path, batch_size=4, perception_batch_size=8).one_by_one()
    assert (plan.batch_size, plan.perception_batch_size, plan.phase_size, plan.look_ahead) == (1, 1, 1, False)
    assert plan.for_rank(3).device == "cpu"


def test_nothing_of_a_run_is_lost_between_samples_and_shards(photos, tmp_path):
    """Each photo is counted once, for its event and for its shard alike."""
    run = plan_of(photos, tmp_path).open().execute(show_progress=False)
    events = [json.loads(line) for line in (tmp_path / "logs" / "rank-00000.jsonl").read_text().split("\n") if line]
    samples = [event for event in events if event["event"] == "sample"]
    assert sum(event["pairs"] for event in samples) == run.pairs == len(rows(tmp_path))
    assert sum(sum(event["accepted"].values()) for event in samples) == sum(run.accepted.values())
    assert run.rejected == len(list(read_rejected(tmp_path)))


def test_a_judge_is_recorded_and_rejects_nothing(photos, tmp_path):
    judge = tmp_path / "red"
    red_detector().save_pretrained(judge)
    plan = plan_of(photos, tmp_path / "judged", judge=str(judge))
    run = plan.open().execute(show_progress=False)
    plain = plan_of(photos, tmp_path / "plain").open().execute(show_progress=False)
    assert run.pairs == plain.pairs > 0
    scores = [json.loads(artifact["scores"]) for row in rows(plan.out) for artifact in row["artifacts"]]
    # No artifact of the embedded model is a red square.
    assert scores and {one["detector_has_artifact"] for one in scores} <= {0.0, 1.0}
    assert all(0 <= one["detector_inside"] <= 1 and 0 <= one["detector_clean"] <= 1 for one in scores)
    recorded = json.loads((plan.out / "run.json").read_text())["curation"]["detector"]
    assert recorded["model"] == "red" and str(tmp_path) not in json.dumps(recorded)
    assert plan.absolute().judge == str(judge)
    with pytest.raises(UserError, match="fingerprint|settings|curation"):
        plan_of(photos, tmp_path / "judged").open()


def test_a_judge_that_is_not_there_is_told(photos, tmp_path):
    with pytest.raises(UserError, match="`judge` must be a folder or a repository on the Hub of a pixel"):
        plan_of(photos, tmp_path / "out", judge=str(tmp_path / "missing")).open()
