"""The record of a run: reading it, and the messages about a broken one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from datasets_script.schema.run_record import RunRecord
from datasets_script.utils.errors import UserError
from evaluate_metrics.functional.versions import recorded_versions


IDENTITY: dict[str, Any] = {
    "settings": {"model": "embedded", "seed": 0, "shard_size": 4},
    "model_revision": "sha256:e0730fca3011be04",
    "perception": {"backend": "annotations"},
    "curation": {"metric": "stlpips", "vlm": None},
    "versions": {"torch": "2.15.0"},
    "sources": {"count": 22, "sha256": "d426"},
}
# The stored form, which must not change.
COMPLETE: dict[str, Any] = {
    **IDENTITY,
    "status": "complete",
    "fingerprint": "5423d5bb05e24284",
    "pairs": 63,
    "rejected": 29,
    "made": {"duplication": 19},
    "accepted": {"duplication": 18},
    "acceptance": {"duplication/add": {"made": 19, "accepted": 18}},
    "rejected_at": {"plan": 28, "curation": 1},
    "num_function_evaluations": 963,
    "token_evaluations": 524.8125,
    "vlm_requests": 12,
    "seconds": 40.587,
}


@pytest.mark.parametrize("content", [COMPLETE, COMPLETE | {"license": "cc-by-4.0"}, {**IDENTITY, "status": "running"}])
def test_a_record_is_written_as_it_was_read(tmp_path, content):
    (tmp_path / "run.json").write_text(json.dumps(content))
    record = RunRecord.read(tmp_path)
    record.write(tmp_path)
    written = json.loads((tmp_path / "run.json").read_text())
    assert written == content and list(written) == list(content)
    assert RunRecord.read(tmp_path) == record


def test_what_identifies_a_run_is_told_with_and_without_its_hash():
    record = RunRecord.from_dict(COMPLETE)
    assert record.identity == IDENTITY
    assert record.origin == IDENTITY | {"fingerprint": "5423d5bb05e24284"}
    assert record.counters == {"num_function_evaluations": 963, "token_evaluations": 524.8125, "vlm_requests": 12}
    running = RunRecord.from_dict(IDENTITY | {"status": "running"})
    assert not running.is_complete and running.origin == IDENTITY


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"status": "complete", "settings": {', "Expecting"),
        ("[]", "must hold an object, got list"),
        ('{"settings": {}}', "`status` must be 'running' or 'complete', got None"),
        (json.dumps({**COMPLETE, "status": "done"}), "`status` must be 'running' or 'complete', got 'done'"),
        (json.dumps({**COMPLETE, "pairs": "many"}), "`pairs` must be of type int, got 'many'"),
        ('{"status": "complete", "settings": {}, "pairs": 3}', "must hold `model_revision`, `perception`, `curation`"),
    ],
)
def test_a_broken_record_is_refused_with_what_is_wrong_and_what_to_do(tmp_path, text, problem):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError) as caught:
        RunRecord.read(tmp_path)
    message = str(caught.value)
    assert str(tmp_path / "run.json") in message and problem in message
    assert "repeat the command that began the run, which writes it again" in message


def test_a_folder_without_a_record_is_no_run(tmp_path):
    with pytest.raises(UserError, match="must be a folder written by `artiagent synthesize`, found no run.json"):
        RunRecord.read(tmp_path)


def test_versions_name_what_is_not_installed_too():
    assert {"torch", "diffusers", "pillow"} <= recorded_versions().keys() and all(recorded_versions().values())
