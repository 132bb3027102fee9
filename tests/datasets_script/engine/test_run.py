"""The engine and the command line, with the embedded model at two steps on the demo's photos."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image
from scipy import ndimage

from datasets_script.agents.perception import AnnotationPerception, Perception
from datasets_script.cli.main import main
from datasets_script.engine.injector import InjectionJob, Injector
from datasets_script.engine.ledger import read_rejected
from datasets_script.engine.settings import InjectionSettings
from datasets_script.engine.shards import RunMismatchError
from datasets_script.pairs.storage import read_pairs
from datasets_script.utils.errors import ArgumentError
from datasets_script.utils.seeds import derive_seed
from diffusers_artifact import PatchMapping
from diffusers_artifact.tools import bbox_of_mask
from diffusers_artifact.visible_change import THRESHOLD, change_map

from ...helpers.engine_runs import KEEP_ALL, SETTINGS, SOURCES, SmallInjector, make_photos, make_run, rows
from ...helpers.tiny_pipelines import tiny_flux


# Two steps and two photos: artifacts that can be told from their surroundings.
TWO = SOURCES[::2]
TWO_STEPS = replace(SETTINGS, injection=InjectionSettings(num_inference_steps=2))


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("demo"), TWO)


@pytest.fixture(scope="module")
def injector() -> Injector:
    return Injector(TWO_STEPS.model, TWO_STEPS.injection, device="cpu")


def run_of(photos, out, injector, settings=TWO_STEPS, sources=TWO, **options):
    return make_run(photos, out, injector, settings, sources, **options)


@pytest.fixture(scope="module")
def small() -> SmallInjector:
    return SmallInjector(TWO_STEPS.model, TWO_STEPS.injection, device="cpu")


@pytest.fixture(scope="module")
def finished(photos, injector, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "out"
    run_of(photos, out, injector).execute()
    return out


class InterruptedPerception(AnnotationPerception):
    """The user presses Ctrl-C at the second photo."""

    def perceive(self, image: Image.Image, source_id: str) -> Perception:
        if source_id == TWO[1]:
            raise KeyboardInterrupt
        return super().perceive(image, source_id)


def test_the_output_is_a_data_set(finished):
    table = load_dataset(str(finished), split="train")
    assert len(table) == 4 and len(list(load_dataset(str(finished), split="train", streaming=True))) == 4
    row = table[0]
    assert row["clean"].size == row["flawed"].size == row["source"].size == (256, 256)
    assert row["grid"] == [32, 32] and row["explanation_source"] == "template" and row["explanation"]
    artifact = row["artifacts"][0]
    mask = np.asarray(artifact["mask"]) > 0
    x_min, y_min, x_max, y_max = (int(v) for v in artifact["bbox"])
    assert mask.any() and mask[y_min:y_max, x_min:x_max].sum() == mask.sum()
    targets = np.zeros(32 * 32, dtype=bool)
    targets[artifact["target_patches"]] = True
    part = np.asarray(artifact["part_mask"]) > 0
    assert part.any() and not part[~targets.reshape(32, 32).repeat(8, 0).repeat(8, 1)].any()
    run = json.loads((finished / "run.json").read_text())
    assert run["status"] == "complete" and run["pairs"] == 4 and run["model_revision"].startswith("sha256:")
    assert {"README.md", "run.json", "rejected.jsonl", "contact_sheet.png"} <= {p.name for p in finished.iterdir()}
    assert not list(finished.rglob("*.incomplete"))


def test_labels_are_what_visibly_changed_and_nothing_else_did(finished):
    for pair in read_pairs(finished):
        clean, flawed = np.asarray(pair.clean), np.asarray(pair.flawed)
        labels = np.sum([artifact.mask for artifact in pair.artifacts], axis=0)
        assert labels.max() == 1
        assert np.array_equal(labels == 1, change_map(clean, flawed) > THRESHOLD)
        assert all(artifact.bbox == bbox_of_mask(artifact.mask) for artifact in pair.artifacts)
        far = ~ndimage.binary_dilation(labels, iterations=8)
        assert np.array_equal(clean[far], flawed[far])


def test_clean_half_is_shared_and_artifacts_are_where_they_are_said_to_be(finished):
    pairs = list(read_pairs(finished))
    assert np.array_equal(np.asarray(pairs[0].clean), np.asarray(pairs[1].clean))
    for pair in pairs:
        change = np.abs(np.asarray(pair.flawed, dtype=float) - np.asarray(pair.clean)).mean(-1)
        targets = np.any([a.mapping.target_patches() for a in pair.artifacts], axis=0).repeat(8, 0).repeat(8, 1)
        assert change[targets].mean() > 3 * change[~targets].mean()


def test_an_interrupted_run_continues_to_the_same_rows(photos, small, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    run_of(photos, whole, small).execute()
    interrupted = InterruptedPerception(photos / "annotations.json")
    with pytest.raises(KeyboardInterrupt):
        run_of(photos, out, small, perception=interrupted).execute()
    assert [path.name for path in (out / "data").iterdir()] == ["pairs-00000.parquet"]
    first = (out / "data" / "pairs-00000.parquet").stat().st_mtime_ns
    run_of(photos, out, small).execute()
    assert (out / "data" / "pairs-00000.parquet").stat().st_mtime_ns == first
    assert rows(out) == rows(whole) and rows(out)


def test_a_run_as_released_is_recorded_and_continues(photos, tmp_path):
    settings = replace(SETTINGS, injection=InjectionSettings(num_inference_steps=1, preset="as-released"))
    injector = SmallInjector("embedded", settings.injection, device="cpu")
    run_of(photos, tmp_path / "whole", injector, settings).execute()
    interrupted = InterruptedPerception(photos / "annotations.json")
    with pytest.raises(KeyboardInterrupt):
        run_of(photos, tmp_path / "out", injector, settings, perception=interrupted).execute()
    run_of(photos, tmp_path / "out", injector, settings).execute()
    assert rows(tmp_path / "out") == rows(tmp_path / "whole")
    assert json.loads((tmp_path / "out" / "run.json").read_text())["settings"]["injection"]["preset"] == "as-released"
    with pytest.raises(RunMismatchError, match="another settings.injection.preset"):
        run_of(photos, tmp_path / "out", injector, replace(settings, injection=SETTINGS.injection))


def test_the_help_names_every_preset(capsys):
    with pytest.raises(SystemExit):
        main(["synthesize", "--help"])
    assert "{auto,paper,as-released,transfer_noise,embedded}" in capsys.readouterr().out


def test_another_setting_is_refused_and_named(photos, injector, finished):
    with pytest.raises(RunMismatchError, match="another settings.max_artifacts, settings.seed"):
        run_of(photos, finished, injector, replace(TWO_STEPS, seed=1, max_artifacts=1))
    with pytest.raises(RunMismatchError, match="other sources, 2 and not 1"):
        run_of(photos, finished, injector, sources=TWO[:1])


def test_a_rejected_artifact_is_not_left_in_the_image(photos, small, tmp_path):
    no_distortion = replace(KEEP_ALL, stlpips_band=(5.0, 6.0))
    settings = replace(
        TWO_STEPS,
        curation=no_distortion,
        tools=("add", "distort"),
        seed=4,
        max_artifacts=3,
        max_target_share=1.0,
        pairs_per_image=3,
        max_rerolls=0,
        balance="shard",
    )
    run_of(photos, tmp_path, small, settings).execute()
    rejected = [r for r in read_rejected(tmp_path) if r["stage"] == "curation"]
    survivors = {pair.pair_id: pair for pair in read_pairs(tmp_path)}
    assert rejected and {r["type"] for r in rejected} == {"distortion"}
    assert all(a.type == "duplication" for pair in survivors.values() for a in pair.artifacts)
    remade = [survivors[r["pair_id"]] for r in rejected if r["pair_id"] in survivors]
    assert remade
    for pair in remade:
        change = np.abs(np.asarray(pair.flawed, dtype=float) - np.asarray(pair.clean)).mean(-1)
        targets = np.any([a.mapping.target_patches() for a in pair.artifacts], axis=0).repeat(8, 0).repeat(8, 1)
        assert change[targets].mean() > 3 * change[~targets].mean()


def test_a_rejected_artifact_is_tried_again_with_another_kernel_or_elsewhere(photos, small, tmp_path):
    settings = replace(
        TWO_STEPS, tools=("distort",), max_artifacts=1, pairs_per_image=1, max_target_share=1.0, max_rerolls=2
    )
    no_distortion = replace(settings, curation=replace(KEEP_ALL, stlpips_band=(5.0, 6.0)))
    run_of(photos, tmp_path / "none", small, no_distortion).execute()
    tried: dict[str, list[tuple[str, str]]] = {name: [] for name in TWO}
    for entry in read_rejected(tmp_path / "none"):
        if entry["stage"] == "curation":
            tried[entry["source_id"]].append((entry["part"], entry["kernel"]))
    assert all(len(entries) == len(set(entries)) == 3 for entries in tried.values())

    reachable = [entry["scores"]["stlpips"] for entry in read_rejected(tmp_path / "none") if entry["scores"]]
    between = 1 - sorted(reachable)[len(reachable) // 2]
    some = replace(settings, curation=replace(KEEP_ALL, stlpips_band=(-10.0, between)))
    run = run_of(photos, tmp_path / "some", small, some).execute()
    assert run.pairs and run.made["distortion"] > run.accepted["distortion"] == run.pairs
    assert sum(counts["made"] for counts in run.acceptance.values()) == run.made["distortion"]


def test_unusable_files_are_rejected_by_name_and_the_rest_is_finished(photos, small, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "broken.jpg").write_bytes((folder / TWO[0]).read_bytes()[:500])
    (folder / "notes.txt").write_text("no image")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.new("RGB", (200, 200)).save(folder / "unknown.png")
    sources = ["broken.jpg", "dot.png", "notes.txt", "unknown.png", TWO[0]]
    run = run_of(folder, tmp_path / "out", small, sources=sources).execute()
    rejected = {r["source_id"]: r["reason"] for r in read_rejected(tmp_path / "out") if r["stage"] != "plan"}
    assert run.pairs == 2
    assert set(rejected) >= set(sources[:4]) and "too small" in rejected["dot.png"]


def test_a_run_in_which_nothing_is_made_says_so(photos, small, tmp_path):
    never = replace(KEEP_ALL, min_change_inside=2.0, stlpips_band=(5.0, 6.0))
    run = run_of(photos, tmp_path, small, replace(TWO_STEPS, curation=never)).execute()
    assert run.pairs == 0 and run.rejected >= 4 and not list(read_pairs(tmp_path))


def test_a_checkpoint_with_text_encoders_takes_the_caption_and_its_own_size(photos, tmp_path):
    tiny_flux().save_pretrained(tmp_path / "model")
    settings = replace(
        SETTINGS, model=str(tmp_path / "model"), max_long_side=480, injection=InjectionSettings(num_inference_steps=1)
    )
    injector = Injector(settings.model, settings.injection, device="cpu")
    run_of(photos, tmp_path / "out", injector, settings, TWO[:1]).execute()
    pairs = list(read_pairs(tmp_path / "out"))
    assert pairs and injector.preset.transfer_noise is False
    assert pairs[0].flawed.size == (480, 480) and pairs[0].grid == (30, 30) and pairs[0].caption


def test_a_few_step_model_is_refused_when_it_is_loaded(photos, tmp_path, capsys):
    folder = tmp_path / "tiny-turbo"
    tiny_flux().save_pretrained(folder)
    assert main(["synthesize", str(photos), str(tmp_path / "out"), "--model", str(folder), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert "must not be distilled to few steps" in error and "Traceback" not in error
    assert Injector(str(folder), InjectionSettings(allow_distilled=True), device="cpu").settings.allow_distilled


def test_targets_alone_are_computed_where_the_preset_holds_the_background():
    with pytest.raises(ArgumentError, match="`compute` must be 'full' unless .*got 'target' with preset 'paper'"):
        Injector("embedded", InjectionSettings(compute="target", preset="paper"))
    spent = {}
    for compute in (None, "target", "full"):
        injector = SmallInjector("embedded", InjectionSettings(num_inference_steps=2, compute=compute), device="cpu")
        grid = (256 // injector.pipeline.patch_size,) * 2
        mapping = PatchMapping((2 * grid[1] + 2, 2 * grid[1] + 3), (0, 1), grid)
        injector.inject([InjectionJob(Image.radial_gradient("L").convert("RGB"), [mapping])])
        assert injector.num_function_evaluations == 3 + 2 * 3
        spent[compute] = injector.token_evaluations
    # The dilated target has 12 tokens, padded to 16.
    assert spent["full"] == 3 + 2 * 3 and spent[None] == spent["target"] == 3 + 3 * (1 + 16 / grid[0] ** 2)


def test_seeds_depend_on_run_and_sample():
    seeds = {derive_seed(run, name) for run in (0, 1) for name in ("a.png", "b.png")}
    assert len(seeds) == 4 and all(0 <= seed < 2**63 for seed in seeds)


def test_command_line_makes_and_shows_and_begins_a_new_run_beside_another(photos, tmp_path, capsys):
    arguments = ["synthesize", str(photos), str(tmp_path / "out"), "--num-inference-steps", "6", "--limit", "1"]
    arguments += ["--tools", "add"]
    assert main(arguments) in (0, 1)
    assert "duplication" in capsys.readouterr().out
    status = main(["show", str(tmp_path / "out")])
    assert status == 0 and "contact_sheet.png" in capsys.readouterr().out
    assert main([*arguments, "--seed", "1"]) == 2
    assert "holds a run with another settings.seed" in capsys.readouterr().err
    assert main([*arguments, "--seed", "1", "--force-new"]) in (0, 1)
    assert "out-2; give that folder, without --force-new, to continue" in capsys.readouterr().out
    assert json.loads((tmp_path / "out-2" / "run.json").read_text())["settings"]["seed"] == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["synthesize", "{photos}", "{photos}/out"], "OUT must lie outside SOURCE"),
        (["synthesize", "{photos}", "{photos}/annotations.json"], "OUT must be a folder, got the file"),
        (["synthesize", "{photos}", "out", "--device", "bogus"], "`device` must be available to torch, got 'bogus'"),
        (["synthesize", "{photos}", "out", "--processes", "0"], "--processes must be at least 1, got 0"),
        (
            ["synthesize", "{photos}", "out", "--world-size", "2"],
            "--rank must be from 0 to 1 with --world-size 2, got none",
        ),
        (["synthesize", "{photos}", "out", "--rank", "1"], "--rank must be from 0 to 0, below --world-size 1, got 1"),
        (["synthesize", "{photos}", "out", "--rank", "0", "--force-new"], "without --processes, --executor and"),
        (
            ["synthesize", "{photos}", "out", "--tasks", "4"],
            "--executor must be one of local, slurm, ray with --tasks",
        ),
        (
            ["synthesize", "{photos}", "out", "--vlm-endpoint", "http://x"],
            "--vlm must name a model at --vlm-endpoint http://x",
        ),
        (["synthesize", "{photos}", "out", "--perception", "sam3"], "--perception sam3 needs --vlm"),
        (["status", "{empty}"], "found no run.json"),
        (["show", "{empty}", "--perception", "people"], "FOLDER must hold photos"),
        (["synthesize", "nowhere", "out"], "SOURCE must be a folder of photos, got 'nowhere'"),
        (["synthesize", "{photos}", "out", "--tools", "melt"], "--tools must be among add, remove, distort, fuse"),
        (["synthesize", "{photos}", "out", "--max-artifacts", "0"], "--max-artifacts must be at least 1, got 0"),
        (["synthesize", "{photos}", "out", "--max-long-side", "64"], "--max-long-side must be at least 480, got 64"),
        (["synthesize", "{photos}", "out", "--model", "no/such-model"], "`model` must be 'embedded', a folder with"),
        (["synthesize", "{photos}", "out", "--model", "{empty}"], "`model` must be 'embedded', a folder with"),
        (["synthesize", "{photos}", "out", "--annotations", "none.json"], "--annotations must be a file"),
        (["synthesize", "{empty}", "out"], "Describe the photos in a COCO-format file"),
        (["show", "{empty}"], "found no run.json"),
    ],
)
def test_mistakes_get_one_clear_line(arguments, message, photos, tmp_path, capsys):
    filled = [argument.format(photos=photos, empty=tmp_path) for argument in arguments]
    assert main(filled) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
