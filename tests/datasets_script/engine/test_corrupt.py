"""`artiagent corrupt` and `corrupt`: the same engine, with regions in place of tools."""

from __future__ import annotations

import inspect
import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import load_dataset

from datasets_script import ArtiAgentPairs, corrupt
from datasets_script.agents.curation.thresholds import RegionGates
from datasets_script.cli.main import build_parser, main
from datasets_script.engine.card import Card
from datasets_script.engine.corruptor import Corruptor
from datasets_script.engine.ledger import read_rejected
from datasets_script.engine.settings import CorruptionRunSettings, CorruptionSettings
from datasets_script.pairs.export.export_pairs import export_pairs
from datasets_script.pairs.storage import read_pairs
from datasets_script.utils.errors import ArgumentError
from diffusers_artifact.artifact_types import RECORDS
from diffusers_artifact.visible_change import THRESHOLD, change_map

from ...helpers.engine_runs import KEEP_ALL, SOURCES, SmallCorruptor, make_photos, make_run, rows, start_killed_at


# Two steps of eight evaluations leave clean images far from their photos, which is no matter here.
SETTINGS = CorruptionRunSettings(
    pairs_per_image=2,
    max_artifacts=2,
    shard_size=1,
    max_rerolls=0,
    corruption=CorruptionSettings(sigmas=(0.8,), num_inference_steps=2),
    curation=KEEP_ALL,
    gates=RegionGates(max_ssim_inside=1.0, min_stlpips_inside=0.0),
)
OPTIONS: dict[str, Any] = {
    "num_inference_steps": 8,
    "sigma": 0.5,
    "max_artifacts": 2,
    "max_rerolls": 0,
    "shard_size": 1,
    "device": "cpu",
    "seed": 3,
}
TWO = SOURCES[:2]
pytestmark = pytest.mark.usefixtures("small_models")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("demo"), TWO)


@pytest.fixture(scope="module")
def corruptor() -> Corruptor:
    return SmallCorruptor.of(SETTINGS, "cpu", "none", Card("cpu", takes_turns=False))


@pytest.fixture(scope="module")
def finished(photos, corruptor, tmp_path_factory) -> Path:
    """A run over the parts of the annotations."""
    out = tmp_path_factory.mktemp("finished") / "out"
    make_run(photos, out, corruptor, SETTINGS, TWO).execute(show_progress=False)
    return out


@pytest.fixture(scope="module")
def commanded(photos, small_models, tmp_path_factory) -> Path:
    """What the command makes of random regions."""
    out = tmp_path_factory.mktemp("commanded") / "out"
    options = [text for name, value in OPTIONS.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    assert main(["corrupt", str(photos), str(out), *options, "--unchanged", "flag"]) == 0
    return out


def test_the_output_is_a_data_set_of_pairs(finished):
    table = load_dataset(str(finished), split="train")
    assert len(table) == 2 * len(TWO)
    run = json.loads((finished / "run.json").read_text())
    assert run["status"] == "complete" and set(run["made"]) == {"corruption"}
    assert run["settings"]["corruption"]["sigmas"] == [0.8] and run["num_function_evaluations"] > 0
    card = (finished / "README.md").read_text()
    assert "artifact corruption" in card and "injected at attention" not in card
    for row in table:
        assert row["solver"] == "midpoint" and row["num_inference_steps"] == 2
        for artifact in row["artifacts"]:
            assert (artifact["type"], artifact["tool"], artifact["kernel"]) == ("corruption", "corruption", "proposed")
            assert artifact["target_patches"] == artifact["reference_patches"] and artifact["target_patches"]
            assert json.loads(artifact["parameters"]) == {"sigma": 0.8}
            assert {"ssim_inside", "distance_outside", "unchanged"} <= json.loads(artifact["scores"]).keys()
            assert artifact["label"] == f"corrupted {artifact['part'] or artifact['entity']}"


def test_labels_are_what_visibly_changed_at_the_regions(finished):
    cleans: dict[str, bytes] = {}
    for pair in read_pairs(finished):
        clean, flawed = np.asarray(pair.clean), np.asarray(pair.flawed)
        labels = np.logical_or.reduce([artifact.mask for artifact in pair.artifacts])
        assert np.array_equal(labels, change_map(clean, flawed) > THRESHOLD)
        targets = np.any([a.mapping.target_patches() for a in pair.artifacts], axis=0).repeat(8, 0).repeat(8, 1)
        change = np.abs(clean.astype(float) - flawed).mean(-1)
        assert change[targets].mean() > 5 * change[~targets].mean()
        for artifact in pair.artifacts:
            assert artifact.part_mask.any() and not (artifact.part_mask & ~targets).any()
        assert cleans.setdefault(pair.source_id, clean.tobytes()) == clean.tobytes()


def test_views_exports_and_the_report_take_it(finished, tmp_path):
    pairs = len(rows(finished))
    builder = ArtiAgentPairs(config_name="masks", source=str(finished), cache_dir=str(tmp_path / "cache"))
    builder.download_and_prepare()
    for row in builder.as_dataset("train"):
        assert np.array_equal(np.asarray(row["mask"]), np.asarray(row["mask_corruption"]))
        assert not np.asarray(row["mask_fusion"]).any()
    for name in ("coco", "yolo"):
        export_pairs(str(finished), tmp_path / name, name)
    coco = json.loads((tmp_path / "coco" / "annotations.json").read_text())
    category = {entry["id"]: entry["name"] for entry in coco["categories"]}
    assert {category[entry["category_id"]] for entry in coco["annotations"]} == {"corruption"}
    labels = [line for path in (tmp_path / "yolo").rglob("*.txt") for line in path.read_text().splitlines()]
    assert {line.split()[0] for line in labels} == {str(list(RECORDS).index("corruption"))}
    assert main(["report", str(finished), "--to", str(tmp_path / "report")]) == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["numbers"]["pairs"] == pairs and set(report["numbers"]["types"]) == {"corruption"}
    assert not any("duplications" in finding for finding in report["findings"])


def test_killed_and_continued_it_ends_with_the_same_rows(photos, corruptor, finished, tmp_path):
    child = start_killed_at(photos, tmp_path, TWO[1], settings=SETTINGS, sources=TWO)
    child.join(240)
    assert child.exitcode == -signal.SIGKILL
    assert len(list((tmp_path / "data").glob("*.parquet"))) == 1
    make_run(photos, tmp_path, corruptor, SETTINGS, TWO).execute(show_progress=False)
    assert rows(tmp_path) == rows(finished)


def test_a_pair_does_not_depend_on_the_others_of_its_photo(photos, corruptor, finished, tmp_path):
    """The first pair is made first, the second one later and alone."""
    one = replace(SETTINGS, pairs_per_image=1)
    make_run(photos, tmp_path, corruptor, one, SOURCES[:1]).execute(show_progress=False)
    make_run(photos, tmp_path, corruptor, SETTINGS, SOURCES[:1]).execute(show_progress=False)
    grown, whole = ({pair.pair_id: pair for pair in read_pairs(out)} for out in (tmp_path, finished))
    assert len(grown) == 2
    for name, pair in grown.items():
        assert [a.mapping for a in pair.artifacts] == [a.mapping for a in whole[name].artifacts]
        difference = np.abs(np.asarray(pair.flawed, dtype=int) - np.asarray(whole[name].flawed))
        assert difference.max() <= 2  # a batch of another size sums in another order


def test_regions_that_hardly_changed_are_dropped_and_counted(photos, corruptor, tmp_path, capsys):
    strict = replace(SETTINGS, gates=RegionGates(max_ssim_inside=-1.0))
    run = make_run(photos, tmp_path / "out", corruptor, strict, SOURCES[:1]).execute(show_progress=False)
    assert run.pairs == 0 and run.made["corruption"] >= 2 and run.accepted.get("corruption", 0) == 0
    reasons = [record["reason"] for record in read_rejected(tmp_path / "out") if record["pair_id"]]
    assert len(reasons) == run.made["corruption"] and all(reason.startswith("unchanged: SSIM") for reason in reasons)
    flagging = replace(strict, gates=replace(strict.gates, unchanged="flag"))
    run = make_run(photos, tmp_path / "flagged", corruptor, flagging, SOURCES[:1]).execute(show_progress=False)
    assert run.pairs == 2
    scores = [artifact.scores for pair in read_pairs(tmp_path / "flagged") for artifact in pair.artifacts]
    assert scores and all(of["unchanged"] == 1 for of in scores)


def test_the_command_and_the_function_make_the_same(photos, commanded, tmp_path):
    files = [photos / name for name in TWO]
    out = corrupt(files, tmp_path / "out", methods="proposed", unchanged="flag", show_progress=False, **OPTIONS)
    assert rows(out) == rows(commanded) and rows(out)
    assert "artiagent corrupt SOURCE OUT" in (commanded / "config.yaml").read_text()
    assert main(["corrupt", str(photos), str(commanded), "--config", str(commanded / "config.yaml")]) == 0
    assert main(["status", str(commanded)]) == 0 and main(["show", str(commanded)]) == 0


def test_a_run_is_not_continued_by_the_other_command(photos, commanded, capsys):
    assert main(["synthesize", str(photos), str(commanded), "--device", "cpu"]) == 2
    assert "holds a run with another" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, message",
    [
        (["--methods", "melt"], "--methods must be among proposed, blur, downscale, rotate, gaussian, got 'melt'"),
        (["--step", "40", "--sigma", "0.5"], "--step and --sigma both set the level, got step 40 and sigma 0.5"),
        (["--step", "fifty"], "--step must be a whole number, got 'fifty'"),
        (["--sigma", "2"], "--sigma must be above 0 and at most 1, got 2"),
        (["--regions", "walls"], "--regions must be one of annotations, perception, detector, random, got 'walls'"),
        (["--annotations", "a.json"], "--regions must be annotations with --annotations, got 'random'"),
        (["--detector", "d"], "--regions must be perception or detector with --detector, got 'random'"),
        (["--region-shares", "0.5,0.1"], "--region-shares must be two rising numbers between 0 and 1, got 0.5,0.1"),
        (["--unchanged", "keep"], "--unchanged must be one of drop, flag, got 'keep'"),
        (["--regions", "perception", "--perception", "sam3"], "--perception sam3 needs --vlm"),
        (["--model", "no/such-model"], "`model` must be 'embedded', a folder with"),
    ],
)
def test_mistakes_are_one_line(photos, tmp_path, capsys, words, message):
    assert main(["corrupt", str(photos), str(tmp_path / "out"), "--device", "cpu", *words]) == 2
    told = capsys.readouterr().err
    assert message in told and "Traceback" not in told


def test_synthesize_takes_no_regions_without_names(photos, tmp_path):
    from datasets_script import synthesize

    with pytest.raises(ArgumentError, match="`perception` must be among annotations, .*, got 'random'"):
        synthesize(photos, tmp_path / "out", perception="random")


def test_arguments_and_options_have_the_same_defaults():
    defaults = vars(build_parser().parse_args(["corrupt", "photos", "out"]))
    arguments = {
        name: parameter.default
        for name, parameter in inspect.signature(corrupt).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name != "show_progress"
    }
    assert arguments == {name: defaults[name] for name in arguments}
