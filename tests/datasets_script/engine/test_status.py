"""`artiagent status` of folders of `artiagent generate` and `correct`; of runs of pairs, see `test_run.py`."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from datasets_script.engine.locks import holding_rank
from datasets_script.engine.status import status_text
from datasets_script.schema.correction import (
    CORRECTIONS_FILE,
    CorrectedImage,
    CorrectedRegion,
    CorrectionRecord,
    Verdict,
)
from datasets_script.schema.generation import CANDIDATES_FILE, GenerationRecord, Prompt, write_prompts
from datasets_script.utils.errors import UserError


def test_candidates_are_counted(tmp_path: Path) -> None:
    record = GenerationRecord({"images_per_prompt": 2, "best_of": 4}, "r", None, {})
    record.write(tmp_path)
    write_prompts(tmp_path, [Prompt("0", "a cat"), Prompt("1", "a dog"), Prompt("2", "a cup")])
    (tmp_path / CANDIDATES_FILE).write_text('{"id": "0"}\n{"id": "1"}\n{"id": ')  # the third is being written
    with holding_rank(tmp_path, 0, 1):
        told = status_text(tmp_path)
        assert "running" in told and "prompts 3, images 6, candidates drawn 2/42" in told
    assert "stopped\nrerun the command" in status_text(tmp_path)
    replace(record, status="complete", curve=(0.25, 0.5)).write(tmp_path)
    assert status_text(tmp_path).endswith("mean best score after each round: 0.2500, 0.5000")
    assert ": complete\n" in status_text(tmp_path)


def test_images_and_ends_of_regions_are_counted(tmp_path: Path) -> None:
    record = CorrectionRecord({}, {}, {}, {})
    record.write(tmp_path)
    assert "images done 0, with regions 0, changed 0\nregions 0; 0 rounds" in status_text(tmp_path)
    regions = tuple(
        CorrectedRegion((0.0, 0.0, 4.0, 4.0), "", 0.9, False, "", Verdict(True), (), outcome)
        for outcome in ("clean", "clean", "worse")
    )
    lines = [
        CorrectedImage("a", "a.png", 8, 8, True, regions, 1.0, 2, 3.0),
        CorrectedImage("b", "b.png", 8, 8, False, (), 0.0, 1, 0.1),
    ]
    (tmp_path / CORRECTIONS_FILE).write_text("".join(json.dumps(asdict(line)) + "\n" for line in lines))
    told = status_text(tmp_path)
    assert "images done 2, with regions 1, changed 1" in told and "regions 3: 2 clean, 1 worse; 0 rounds" in told


def test_folders_of_nothing_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        status_text(tmp_path)
