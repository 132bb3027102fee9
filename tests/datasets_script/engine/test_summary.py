"""What a run says of itself at its start and at its end."""

from __future__ import annotations

from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

from datasets_script.agents.curation.curator import Curator
from datasets_script.agents.curation.perceptual import load_perceptual_metric
from datasets_script.agents.curation.thresholds import CurationSettings
from datasets_script.engine.banner import models_banner
from datasets_script.engine.injector import Injector
from datasets_script.engine.ledger import marker
from datasets_script.engine.log import ProgressLine
from datasets_script.engine.settings import InjectionSettings, RunSettings
from datasets_script.engine.shards import Shards
from datasets_script.engine.summary import photos_summary
from datasets_script.schema.pair import Rejection
from datasets_script.utils.files import write_json

from ...helpers.made_pairs import make_pair, write_run


def test_photos_without_pairs_are_counted_by_what_was_wrong(tmp_path):
    pairs = [make_pair(index) for index in range(2)]
    out = write_run(tmp_path / "out", pairs)
    gave = {pair.source_id for pair in pairs}
    rejections = [
        Rejection("a.png", "perceive", "no person found"),
        Rejection("b.png", "perceive", "no person found"),
        Rejection("c.png", "plan", "person #1, left hand #2: 300 px, not over 512"),
        Rejection("c.png", "plan", "no fitting part", type="omission", tool="remove"),
        Rejection("c.png", "plan", "no tool fits"),
        Rejection("d.png", "plan", "the part covers no patch", type="omission", tool="remove"),
        Rejection("d.png", "plan", "no tool fits"),
        Rejection("e.png", "curation", "no change", "e.png:0", "omission", "remove"),
        Rejection("f.png", "read", "the same file as 'a.png'"),
        Rejection("g.png", "read", "cannot be read: No such file"),
        Rejection(min(gave), "curation", "no change", "x:1", "omission", "remove"),
    ]
    Shards.of_sources([*sorted(gave), *"abcdefg"], 32).write(out)
    write_json(marker(out, 0), {"rejected": [asdict(rejection) for rejection in rejections]})
    assert photos_summary(out) == (
        f"{len(gave)} of {len(gave) + 7} photos gave pairs; 2 no person found, 1 no part of 512 px, 1 no place for an "
        "artifact, 1 every artifact was rejected, 1 the same file as …, 1 cannot be read"
    )


def test_the_line_of_progress_counts_retried_requests(capsys, monkeypatch):
    # As wide as the whole line, whatever another library has set.
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("LINES", "50")
    progress = ProgressLine("synthesize", 3, 0)
    event = {"event": "sample", "pairs": 1, "accepted": {"fusion": 1}, "discarded": {}}
    progress.take({"event": "shard", "restored": ["a.png"]})
    for retries in (0, 2):
        progress.take(event | {"retries": retries})
    progress.close()
    told = capsys.readouterr().err
    assert "3/3" in told and "2 pairs" in told and "; 2 retries" in told


def test_the_embedded_model_with_a_vlm_as_judge_warns():
    injector = Injector("embedded", InjectionSettings(), device="cpu")
    metric = load_perceptual_metric("stlpips")
    judges: list[Any] = [None, SimpleNamespace(model="Qwen/Qwen2.5-VL-7B-Instruct")]
    for vlm in judges:
        told = models_banner(injector, Curator(CurationSettings(), metric, vlm), RunSettings())
        assert ("warning: the embedded model makes images of 256x256 px" in told) == bool(vlm)
        assert f"explanations: {vlm.model if vlm else 'templates'}" in told
