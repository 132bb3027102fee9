"""Runs merged into one folder, which is then a run like others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from datasets_script.cli.main import main
from datasets_script.engine.ledger import marker, read_markers
from datasets_script.engine.shards import Shards
from datasets_script.engine.status import status_text
from datasets_script.pairs.storage import find_shards, read_pairs
from datasets_script.schema.run_record import RunRecord
from datasets_script.utils.files import write_json

from ...helpers.made_pairs import RUN, make_pair, write_run


SETTINGS: dict[str, Any] = {"model": "embedded", "seed": 0}


def whole_run(out: Path, names: list[str], seed: int) -> Path:
    """Write a run with all of its files; each photo is a shard."""
    pairs = [
        replace(make_pair(number), source_id=name, pair_id=f"{name}:0", variant=0) for number, name in enumerate(names)
    ]
    settings = {**SETTINGS, "seed": seed, "shard_size": 1}
    write_run(out, pairs, len(names), settings=settings, sources={"count": len(names), "sha256": out.name})
    Shards.of_sources(names, 1).write(out)
    for shard in range(len(names)):
        totals = {"sources": 1, "pairs": 1, "rejections": 1, "seconds": 1.0, "scores": {}}
        counts: dict[str, dict[str, int]] = {name: {} for name in ("accepted", "discarded", "rejected_at", "counters")}
        write_json(marker(out, shard), {"fingerprint": RUN["fingerprint"], **totals, **counts, "rejected": []})
    (out / "rejected.jsonl").write_text(json.dumps({"source_id": names[0], "reason": "why"}) + "\n")
    return out


def test_merged_runs_are_a_run(tmp_path, capsys):
    one = whole_run(tmp_path / "one", ["a.png", "b.png"], seed=0)
    two = whole_run(tmp_path / "two", ["c.png"], seed=1)
    out = tmp_path / "all"
    assert main(["merge", str(one), str(two), str(out)]) == 0
    assert "3 pairs of 2 runs in" in capsys.readouterr().out
    assert [pair.pair_id for pair in read_pairs(out)] == ["a.png:0", "b.png:0", "c.png:0"]
    stored = [Path(path).read_bytes() for path in find_shards([str(one), str(two)])]
    assert [Path(path).read_bytes() for path in find_shards(str(out))] == stored
    record = RunRecord.read(out)
    assert record.is_complete and record.pairs == 3 and record.sources["count"] == 3
    assert record.settings["seed"] == [0, 1] and record.settings["model"] == SETTINGS["model"]
    assert {entry["fingerprint"] for entry in read_markers(out)} == {record.fingerprint}
    assert Shards.read(out, record.settings).sources == ["a.png", "b.png", "c.png"]
    assert len((out / "rejected.jsonl").read_text().splitlines()) == 2 and (out / "contact_sheet.png").exists()
    assert "complete" in status_text(out) and "shards 3/3, photos 3/3" in status_text(out)
    assert main(["export", str(out), str(tmp_path / "yolo"), "--format", "yolo"]) == 0
    assert len(list((tmp_path / "yolo" / "images").iterdir())) == 6


def test_runs_that_share_a_pair_or_are_not_complete_are_refused(tmp_path, capsys):
    one = whole_run(tmp_path / "one", ["a.png"], seed=0)
    two = whole_run(tmp_path / "two", ["a.png"], seed=1)
    three = whole_run(tmp_path / "three", ["b.png"], seed=1)
    write_json(three / "run.json", json.loads((three / "run.json").read_text()) | {"status": "running"})
    for runs, message in (
        ([one, two], "pair ids must be unique, but 'a.png:0' is in"),
        ([one, three], "must hold a completed run"),
        ([one], "must be at least two folders of runs, got 1"),
    ):
        assert main(["merge", *map(str, runs), str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main(["merge", str(one), str(one), str(two)]) == 2
    assert "must be missing or empty" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["show", "export", "prepare"])
def test_filters_keep_the_pairs_all_of_whose_artifacts_fit(tmp_path, capsys, command):
    out = write_run(tmp_path / "out", [make_pair(number) for number in range(5)])
    (out / "README.md").write_text("---\nlicense: unknown\n---\n\n# Pairs\n")
    kinds: list[set[str]] = [{artifact.type for artifact in pair.artifacts} for pair in read_pairs(out)]
    _, chosen = max((sum(kind <= of_pair for kind in kinds), sorted(of_pair)) for of_pair in kinds)
    fitting = sum(of_pair <= set(chosen) for of_pair in kinds)
    dest = tmp_path / "dest"
    arguments = {
        "show": ["show", str(out), "--sheet", str(tmp_path / "sheet.png")],
        "export": ["export", str(out), str(dest), "--format", "coco"],
        "prepare": ["prepare", "artiagent", "--source", str(out), "--out", str(dest), "--config", "pairs"],
    }[command]
    assert main([*arguments, "--types", ",".join(chosen)]) == 0
    if command == "export":
        info = json.loads((dest / "info.json").read_text())
        assert len(list((dest / "images").iterdir())) == 2 * fitting and info["only"]["types"] == chosen
    if command == "prepare":
        assert pq.read_metadata(dest / "pairs-train.parquet").num_rows == fitting
        assert json.loads((dest / "prepared.json").read_text())["options"]["only"]["types"] == chosen
    if command != "prepare":
        again = [str(tmp_path / "other") if argument == str(dest) else argument for argument in arguments]
        assert main([*again, "--min-score", "change_inside=0.3"]) == 2
        assert "must keep at least one" in capsys.readouterr().err
