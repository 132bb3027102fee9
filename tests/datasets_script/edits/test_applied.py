"""Edits applied by `artiagent prepare` and `artiagent merge`: rows, texts, counts and records stay consistent."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from datasets_script.benchmarks.loading import load_benchmark
from datasets_script.cli.main import main
from datasets_script.edits.image_rows import edited_image
from datasets_script.edits.layer import EDITS_FILE
from datasets_script.edits.pair_rows import MEASURED_IN_MASK, edited_pair
from datasets_script.edits.records import SampleEdits, Values
from datasets_script.edits.shapes import boxed, filled, grown, within
from datasets_script.engine.ledger import Totals, marker, read_totals
from datasets_script.engine.shards import Shards
from datasets_script.pairs.builder import ArtiAgentPairs
from datasets_script.pairs.storage import find_shards, read_rows
from datasets_script.pairs.views.vqa import vqa_rows
from datasets_script.schema.features import pair_to_row
from datasets_script.schema.image import BenchmarkImage, Region, image_to_row
from datasets_script.schema.run_record import RunRecord
from datasets_script.utils.errors import UserError
from datasets_script.utils.files import write_json
from datasets_script.utils.run_lengths import decode_mask, encode_mask
from datasets_script.vlm.conventions import BoxFormat
from diffusers_artifact.tools import bbox_of_mask

from ...helpers.benchmark_sources import artibench_row, picture, write_artibench
from ...helpers.made_edits import Editor
from ...helpers.made_pairs import HEIGHT, RUN, WIDTH, make_pair, write_run


SIZE = (WIDTH, HEIGHT)


def a_mask() -> np.ndarray:
    return filled((8.0, 16.0, 40.0, 48.0), SIZE)


def decoded(stored: dict[str, Any]) -> np.ndarray:
    with Image.open(io.BytesIO(stored["bytes"])) as image:
        return np.asarray(image) > 127


def edits(*regions: Values, verdict: str = "") -> SampleEdits:
    return SampleEdits("d", verdict, {one.region or 0: one for one in regions})


def make_run(out: Path, count: int = 4, shards: int = 2) -> Path:
    """Write a run with all of its files, as the engine leaves it."""
    pairs = [make_pair(number) for number in range(count)]
    totals = Totals()
    size = -(-count // shards)
    write_run(out, pairs, shards, sources={"count": count, "sha256": out.name})
    Shards.of_sources([pair.source_id for pair in pairs], size).write(out)
    for shard in range(shards):
        of_shard = Totals()
        for pair in pairs[shard * size : (shard + 1) * size]:
            of_shard.count([pair], [])
        totals.merge(of_shard)
        write_json(marker(out, shard), {"fingerprint": RUN["fingerprint"], **of_shard.as_dict(), "rejected": []})
    by_type = dict(totals.by_type(totals.accepted))
    settings = {"model": "embedded", "seed": 0, "shard_size": size}
    record = replace(RunRecord.read(out), settings=settings, made=by_type, accepted=by_type)
    replace(record, acceptance=totals.acceptance).write(out)
    (out / "rejected.jsonl").write_text("")
    (out / "README.md").write_text("---\nlicense: unknown\n---\n\n# Pairs\n")
    return out


def test_a_relabelled_artifact_gets_the_words_of_its_type() -> None:
    row = pair_to_row(make_pair(0))
    (artifact,) = row["artifacts"]
    other = "distortion" if artifact["type"] != "distortion" else "duplication"
    edited = edited_pair(row, edits(Values(region=0, type=other)))
    assert edited is not None
    (changed,) = edited["artifacts"]
    assert changed["type"] == other and changed["tool"] == artifact["tool"] and changed["mask"] == artifact["mask"]
    word = {"distortion": "distorted", "duplication": "duplicated"}[other]
    assert changed["label"].startswith(word) and edited["explanation"] != row["explanation"]
    assert edited["explanation_source"] == "template" and edited["flawed"] == row["flawed"]
    by_model = edited_pair({**row, "explanation_source": "lab/vlm"}, edits(Values(region=0, type=other)))
    assert by_model is not None and by_model["explanation_source"] == "lab/vlm, template"


@pytest.mark.parametrize("part", ["ear", ""])
def test_every_type_finds_words_for_everything(part: str) -> None:
    row = pair_to_row(make_pair(0))
    row["artifacts"][0] |= {"part": part, "entity": "cat", "fused_entity": "", "type": "corruption"}
    labels = {}
    for kind in ("duplication", "omission", "distortion", "fusion"):
        edited = edited_pair(row, edits(Values(region=0, type=kind)))
        assert edited is not None
        labels[kind] = (edited["artifacts"][0]["label"], edited["artifacts"][0]["fused_entity"], edited["explanation"])
        list(vqa_rows(edited, BoxFormat("pixel")))
    thing = part or "cat"
    assert labels["omission"][0] == f"missing {thing}" and labels["duplication"][0] == f"duplicated {thing}"
    assert labels["fusion"][:2] == ("fused cat and surroundings", "surroundings")
    assert "the cat" in labels["omission"][2].lower() or "the image's cat" in labels["omission"][2].lower()
    assert not any("  " in text or text.endswith(" ") for label in labels.values() for text in label)


def test_a_mask_takes_box_and_place_along_and_scores_of_the_old_one_away() -> None:
    row = pair_to_row(make_pair(2))
    scores = {"change_inside": 0.25, **dict.fromkeys(MEASURED_IN_MASK, 1.0)}
    for artifact in row["artifacts"]:
        artifact["scores"] = json.dumps(scores)
    values = Values(region=1, box=bbox_of_mask(a_mask()), mask=encode_mask(a_mask()))
    edited = edited_pair(row, edits(values))
    assert edited is not None
    changed, untouched = edited["artifacts"][1], edited["artifacts"][0]
    assert np.array_equal(decoded(changed["mask"]), a_mask()) and changed["bbox"] == [8.0, 16.0, 40.0, 48.0]
    assert json.loads(changed["scores"]) == {"change_inside": 0.25} and json.loads(untouched["scores"]) == scores
    assert changed["part_mask"] == row["artifacts"][1]["part_mask"] and untouched == row["artifacts"][0]
    assert edited["explanation"] == row["explanation"] and "upper left" in changed["explanation"]
    without = edited_pair(row, edits(Values(region=1, present=False)))
    assert without is not None and len(without["artifacts"]) == len(row["artifacts"]) - 1
    assert edited_pair(row, edits(verdict="reject")) is None and edited_pair(row, edits()) == row


def test_images_of_benchmarks_change_with_their_regions() -> None:
    regions = (
        Region("polygon", (1.0, 1.0, 9.0, 9.0), ((1, 1, 9, 1, 9, 9),), name="hand"),
        Region("mask", (2.0, 2.0, 4.0, 4.0), mask=filled((2, 2, 4, 4), (20, 10)), name="foot"),
    )
    flawed = image_to_row(BenchmarkImage("a", picture(1), (20, 10), True, regions, explanation="Two flaws."))
    mask = filled((0, 0, 6, 3), (20, 10))
    edited = edited_image(
        flawed,
        edits(
            Values(region=0, box=bbox_of_mask(mask), mask=encode_mask(mask)),
            Values(region=1, type="toe"),
            Values(region=2, present=True, type="ear", box=(5.0, 5.0, 8.0, 8.0), mask={}),
        ),
    )
    assert edited is not None
    first, second, third = edited["regions"]
    assert first["shape"] == "mask" and not first["polygons"] and np.array_equal(decoded(first["mask"]), mask)
    assert second == {**flawed["regions"][1], "class": "toe"} and edited["explanation"] == "Two flaws."
    assert third["shape"] == "box" and third["bbox"] == [5.0, 5.0, 8.0, 8.0] and third["class"] == "ear"
    none = edited_image(flawed, edits(Values(region=0, present=False), Values(region=1, present=False)))
    assert none is not None and none["has_artifact"] is False and not none["regions"] and not none["explanation"]
    clean = image_to_row(BenchmarkImage("b", picture(2), (20, 10), False))
    added = edited_image(clean, edits(Values(region=0, present=True, type="hand", box=(0.0, 0.0, 2.0, 2.0), mask={})))
    assert added is not None and added["has_artifact"] is True


def test_boxes_cut_masks_or_are_them() -> None:
    mask = a_mask() & ~filled((8.0, 16.0, 12.0, 20.0), SIZE)
    cut = boxed(mask, (8.0, 16.0, 24.0, 32.0))
    assert np.array_equal(cut, mask & filled((8.0, 16.0, 24.0, 32.0), SIZE))
    beyond = (0.0, 16.0, 24.0, 32.0)
    assert np.array_equal(boxed(mask, beyond), filled(beyond, SIZE))
    assert bbox_of_mask(grown(mask, 2)) == (6.0, 14.0, 42.0, 50.0) and bbox_of_mask(grown(mask, -2))[0] >= 10
    assert np.array_equal(decode_mask(encode_mask(mask)), mask)
    assert within((9.4, 5, -3, 2), (8, 8)) == (0.0, 2.0, 8.0, 5.0)
    with pytest.raises(UserError, match="a box must cover a pixel"):
        within((3, 3, 3, 9), (8, 8))


def test_prepare_applies_edits_of_a_run_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, dest = make_run(tmp_path / "run"), tmp_path / "prepared"
    stored = [Path(path).read_bytes() for path in find_shards(str(run))]
    editor = Editor(run)
    kind = editor.rows["", "photo1.png:0"]["artifacts"][0]["type"]
    other = "corruption"
    editor.judge(("", "photo0.png:0"), "reject")
    editor.relabel(("", "photo1.png:0"), 0, kind, other)
    editor.judge(("", "photo1.png:0"), "accept")
    editor.paint(("", "photo2.png:0"), 0, a_mask())
    editor.edit(("", "photo3.png:0"), "reject", Values(verdict=""), Values(verdict="reject"), data="of other pixels")
    editor.digests["", "gone.png:0"] = "x"
    editor.judge(("", "gone.png:0"), "reject")
    with (run / EDITS_FILE).open("a") as file:
        file.write('{"sample": "torn')
    command = ["prepare", "artiagent", "--source", str(run), "--out", str(dest)]
    assert main([*command, "--config", "pairs", "--num-proc", "2"]) == 0
    told = capsys.readouterr().out
    assert "4 edits applied: 1 accepted, 1 rejected and left out, 2 changed" in told
    assert "the edits of 1 samples were made on other images or regions and are not applied: photo3.png:0" in told
    assert "edits name 1 samples that are not there: gone.png:0" in told and "edits.jsonl is torn" in told
    rows = list(read_rows([str(dest / "pairs-train.parquet")]))
    assert [row["pair_id"] for row in rows] == [f"photo{number}.png:0" for number in (1, 2, 3)]
    assert rows[0]["artifacts"][0]["type"] == other and "corrupted" in rows[0]["explanation"]
    assert np.array_equal(decoded(rows[1]["artifacts"][0]["mask"]), a_mask())
    record = json.loads((dest / "prepared.json").read_text())["edits"]
    assert record["rejected"] == ["photo0.png:0"] and record["people"] == 1 and record["torn"]
    assert "## Edits by people" in (dest / "README.md").read_text()
    assert [Path(path).read_bytes() for path in find_shards(str(run))] == stored

    assert main([*command[:-1], str(tmp_path / "as-it-was"), "--config", "pairs", "--no-edits"]) == 0
    assert "applied" not in capsys.readouterr().out
    assert len(list(read_rows([str(tmp_path / "as-it-was" / "pairs-train.parquet")]))) == 4
    # Filters see what the edits leave.
    filtered = [*command[:-1], str(tmp_path / "filtered"), "--config", "pairs", "--types", other]
    assert main(filtered) == (0 if len(rows[0]["artifacts"]) == 1 else 2)


def test_the_builder_applies_edits_and_tells_its_caches_apart(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")

    def pairs(**options: Any) -> list[str]:
        builder = ArtiAgentPairs(config_name="pairs", source=str(run), cache_dir=str(tmp_path / "cache"), **options)
        builder.download_and_prepare()
        return builder.as_dataset("train")["pair_id"]

    assert len(pairs()) == 4
    Editor(run).judge(("", "photo0.png:0"), "reject")
    assert len(pairs()) == 3 and len(pairs(edits=False)) == 4
    with pytest.raises(UserError, match=r"`edits` must be a folder with edits.jsonl, got '.*typo'"):
        pairs(edits=str(tmp_path / "typo"))


def test_merge_applies_edits_and_counts_what_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = make_run(tmp_path / "run", 6, 3), tmp_path / "corrected"
    before = RunRecord.read(run)
    editor = Editor(run)
    editor.judge(("", "photo0.png:0"), "reject")
    first = editor.rows["", "photo1.png:0"]["artifacts"]
    editor.relabel(("", "photo1.png:0"), 0, first[0]["type"], "corruption")
    editor.edit(("", "photo1.png:0"), "remove", Values(region=1, present=True), Values(region=1, present=False))
    # Leaves every artifact as it is, and counts as they were.
    editor.judge(("", "photo2.png:0"), "accept")
    assert main(["merge", str(run), str(out)]) == 0
    told = capsys.readouterr().out
    assert "4 edits applied: 1 accepted, 1 rejected and left out, 1 changed" in told
    assert "5 pairs of 1 runs in" in told
    record, totals, rows = RunRecord.read(out), read_totals(out), list(read_rows(find_shards(str(out))))
    artifacts = [artifact for row in rows for artifact in row["artifacts"]]
    gone = len(editor.rows["", "photo0.png:0"]["artifacts"]) + 1
    assert record.pairs == totals.pairs == len(rows) == 5
    assert sum(record.accepted.values()) == sum(totals.accepted.values()) == len(artifacts)
    for kind in {artifact["type"] for artifact in artifacts}:
        count = sum(artifact["type"] == kind for artifact in artifacts)
        assert record.accepted[kind] == totals.by_type(totals.accepted)[kind] == count
    assert sum(record.made.values()) == sum(before.made.values()) and record.acceptance == totals.acceptance
    assert record.rejected == totals.rejections == gone == record.rejected_at["edits"]
    rejected = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert {one["reason"] for one in rejected} == {"a person rejected the pair", "a person took the region out"}
    assert record.edits["rejected"] == ["photo0.png:0"] and not (out / EDITS_FILE).exists()
    # The shard without edits keeps its bytes.
    assert Path(find_shards(str(out))[-1]).read_bytes() == Path(find_shards(str(run))[-1]).read_bytes()
    assert main(["merge", str(out), str(tmp_path / "again")]) == 2
    assert "one is enough if people edited it" in capsys.readouterr().err


def test_prepare_applies_edits_of_a_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_artibench(tmp_path / "source", [artibench_row(number) for number in range(6)])
    command = ["prepare", "artibench", "--source", str(source), "--allow-partial", "--out"]
    prepared, corrected = tmp_path / "prepared", tmp_path / "corrected"
    assert main([*command, str(prepared)]) == 0
    editor = Editor(prepared)
    editor.judge(("test", "0001"), "reject")
    editor.relabel(("test", "0003"), 0, "distortion", "omission")
    editor.judge(("test", "0002"), "accept")
    editor.layer.undo("ann")
    capsys.readouterr()
    assert main([*command, str(corrected), "--edits", str(prepared)]) == 0
    assert "2 edits applied: 1 rejected and left out, 1 changed" in capsys.readouterr().out
    images = {image.id: image for image in load_benchmark(corrected)}
    assert sorted(images) == ["0000", "0002", "0003", "0004", "0005"]
    assert images["0003"].regions[0].name == "omission" and images["0003"].regions[0].caption == "Bent leg 3"
    assert json.loads((corrected / "prepared.json").read_text())["edits"]["changed"] == ["0003"]
    assert "1 rejected and left out" in (corrected / "README.md").read_text()
    assert pq.read_metadata(next((prepared / "data").glob("*.parquet"))).num_rows == 6

    for arguments, message in (
        (["--edits", str(source)], "--edits must be a folder with edits.jsonl"),
        (["--edits", str(prepared), "--no-edits"], "--edits and --no-edits must not be given together"),
    ):
        assert main([*command, str(tmp_path / "x"), *arguments]) == 2
        assert message in capsys.readouterr().err
