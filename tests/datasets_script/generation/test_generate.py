"""`artiagent generate` with a tiny Stable Diffusion: search, kill and continue, growth, and what is refused."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datasets_script import PixelDetector, generate
from datasets_script.cli.main import main
from datasets_script.generation.pipelines import call_options
from datasets_script.generation.settings import GenerationSettings
from datasets_script.schema.generation import GenerationRecord, read_images, read_lines
from datasets_script.utils.errors import ArgumentError, UserError
from diffusers_artifact import EMBEDDED_MODEL
from diffusers_artifact.best_of_n import candidate_seed

from ...helpers.killed import kill_once
from ...helpers.tiny_detectors import tiny_network, tiny_record
from ...helpers.tiny_pipelines import save_pipelines, tiny_flux, tiny_flux2, tiny_qwen_image, tiny_sd


PROMPTS = ["a red fox", "two hands holding a cup"]
CALL: dict[str, Any] = {"num_inference_steps": 2, "size": "32x32", "device": "cpu"}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    """Folders of a text-to-image model and of a detector, which scores by random weights."""
    folder = tmp_path_factory.mktemp("models")
    PixelDetector(tiny_network("mit_b0"), tiny_record()).save_pretrained(folder / "detector")
    return {**save_pipelines({"sd": tiny_sd}, folder), "detector": str(folder / "detector")}


def search(models: dict[str, str], out: Path, **changes: Any) -> GenerationRecord:
    options = {"model": models["sd"], "detector": models["detector"], "best_of": 4, **CALL}
    return generate(changes.pop("prompts", PROMPTS), out, **{**options, **changes})


@pytest.fixture(scope="module")
def searched(models, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "searched"
    search(models, out)
    return out


def lines_of(out: Path) -> list[dict[str, Any]]:
    return sorted(read_lines(out / "generate.jsonl"), key=lambda line: (line["id"], line["number"]))


def pictures_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "images").glob("*.png"))}


def assert_equal_runs(out: Path, other: Path) -> None:
    assert lines_of(out) == lines_of(other)
    assert pictures_of(out) == pictures_of(other)
    assert read_images(out) == read_images(other)


def test_the_best_candidate_is_kept_with_its_seed(searched, models):
    lines, images = lines_of(searched), read_images(searched)
    assert [(line["id"], line["number"]) for line in lines] == [
        (name, number) for name in ("00000-0", "00001-0") for number in range(7)
    ]
    assert all(line["seed"] == candidate_seed(0, line["id"], line["number"]) for line in lines)
    detector, pipeline = PixelDetector.from_pretrained(models["detector"], device="cpu"), tiny_sd()
    for image, prompt in zip(images, PROMPTS, strict=True):
        scores = [line["score"] for line in lines if line["id"] == image.id]
        best = max(range(7), key=lambda number: scores[number])
        assert image.prompt == prompt and image.score == scores[best]
        assert image.seed == candidate_seed(0, image.id, best)
        assert image.curve == (scores[0], max(scores[:3]), max(scores))
        stored = Image.open(searched / "images" / image.file_name)
        assert image.score == -detector.raw_score(detector.maps([stored])[0])
        generator = torch.Generator().manual_seed(image.seed)
        redrawn = pipeline(prompt, num_inference_steps=2, height=32, width=32, generator=generator).images[0]
        assert np.abs(np.asarray(stored, int) - np.asarray(redrawn, int)).max() <= 1


def test_the_record_says_what_was_done(searched):
    record = GenerationRecord.read(searched)
    assert (record.status, record.images, record.candidates) == ("complete", 2, 14)
    curves = [image.curve for image in read_images(searched)]
    assert record.curve == pytest.approx([sum(scores) / 2 for scores in zip(*curves, strict=True)])
    assert record.settings["best_of"] == 4 and record.settings["loading"]["dtype"] == "float32"
    assert record.scorer is not None and record.scorer["detector"]["model"] == "detector"
    assert record.versions["diffusers"] and record.model_revision.startswith("sha256:")


def test_images_load_as_a_dataset(searched, tmp_path):
    from datasets import load_dataset

    rows = load_dataset(str(searched / "images"), split="train", cache_dir=str(tmp_path))
    assert sorted(rows["prompt"]) == sorted(PROMPTS) and rows[0]["image"].size == (32, 32)


def test_killed_and_continued_it_ends_with_the_same_images(searched, models, tmp_path):
    journal = tmp_path / "killed" / "generate.jsonl"
    ended = kill_once(
        lambda: journal.exists() and journal.read_bytes().count(b"\n") >= 3, search, models, journal.parent
    )
    done = journal.read_bytes().count(b"\n")
    assert ended == -signal.SIGKILL and 3 <= done < 14
    assert GenerationRecord.read(journal.parent).status == "running"
    kept = journal.read_bytes()
    search(models, journal.parent)
    assert journal.read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    assert_equal_runs(journal.parent, searched)


def copy_of(out: Path, folder: Path) -> Path:
    import shutil

    return Path(shutil.copytree(out, folder / "copy"))


def test_half_a_line_and_lost_images_are_made_again(searched, models, tmp_path):
    out = copy_of(searched, tmp_path)
    journal = out / "generate.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    (out / "images" / "00000-0.png").unlink()
    search(models, out)
    assert_equal_runs(out, searched)


def test_a_complete_run_is_left_as_it_is(searched, models, tmp_path):
    out = copy_of(searched, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.suffix != ".lock"}
    search(models, out)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_run_grows_to_a_larger_one(searched, models, tmp_path):
    out = tmp_path / "grown"
    search(models, out, best_of=1, prompts=PROMPTS[:1])
    search(models, out, best_of=1, images_per_prompt=2)
    grown = search(models, out, best_of=2, images_per_prompt=2, batch_size=5)
    assert (grown.images, grown.candidates) == (4, 12)
    of_searched = {(line["id"], line["number"]): line for line in lines_of(searched)}
    of_both = [
        (line, of_searched[key]) for line in lines_of(out) if (key := (line["id"], line["number"])) in of_searched
    ]
    assert len(of_both) == 6
    for line, other in of_both:
        assert line["seed"] == other["seed"] and line["score"] == pytest.approx(other["score"], abs=1e-3)


def test_a_run_that_drew_nothing_begins_again(models, tmp_path):
    out = tmp_path / "begun"
    search(models, out, best_of=1)
    (out / "generate.jsonl").write_text("")
    assert search(models, out, best_of=1, seed=5).settings["seed"] == 5


def test_all_candidates_are_kept_on_request(searched, models, tmp_path):
    search(models, tmp_path / "all", best_of=2, keep_candidates=True, prompts=PROMPTS[0])
    files = sorted(path.name for path in (tmp_path / "all" / "candidates" / "00000-0").iterdir())
    assert files == ["0000.png", "0001.png", "0002.png"]


def test_without_a_search_images_have_no_score(models, tmp_path):
    record = search(models, tmp_path / "plain", best_of=1, detector=None, batch_size=2)
    assert record.scorer is None and (record.candidates, record.curve) == (2, ())
    assert [image.score for image in read_images(tmp_path / "plain")] == [None, None]
    first = {line["seed"] for line in lines_of(tmp_path / "plain")}
    assert first == {candidate_seed(0, name, 0) for name in ("00000-0", "00001-0")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "holds a run with another settings.seed"),
        ({"best_of": 2}, "holds a run with another settings.best_of"),
        ({"num_inference_steps": 3}, "another settings.num_inference_steps"),
        ({"prompts": [PROMPTS[0]]}, "another prompts"),
        ({"prompts": ["a blue fox", PROMPTS[1]]}, "another prompts"),
        ({"detector": "embedded"}, "another settings.detector"),
    ],
)
def test_another_run_is_not_mixed_in(changes, message, searched, models):
    before = pictures_of(searched), lines_of(searched)
    with pytest.raises(UserError, match=message):
        search(models, searched, **changes)
    assert (pictures_of(searched), lines_of(searched)) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "embedded"}, "`model` must be a text-to-image model, .* has no text encoder"),
        ({"model": str(EMBEDDED_MODEL)}, "`model` must be a text-to-image model"),
        ({"model": "no/such model"}, "`model` must be"),
        ({"detector": None}, "`best_of` 4 must come with `reward` or `detector`"),
        ({"reward": "r"}, "got both; leave out one"),
        ({"best_of": 3}, "`best_of` must be a power of two"),
        ({"size": "100x100"}, "`size` must be WIDTHxHEIGHT in multiples of 16 px"),
        ({"guidance": -1.0}, "`guidance` must be at least 0"),
        ({"prompts": "prompts.txt"}, "`prompts` must be a file"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changes, message, models, tmp_path):
    with pytest.raises(UserError, match=message):
        search(models, tmp_path / "out", **changes)
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_folder_of_something_else_is_refused(models, tmp_path):
    (tmp_path / "photo.png").write_bytes(b"")
    with pytest.raises(UserError, match="OUT must be a new or empty folder"):
        search(models, tmp_path)


def test_guidance_goes_where_the_pipeline_takes_it():
    settings = GenerationSettings(model="m", guidance=4.0)
    assert call_options(tiny_sd(), settings) == {"guidance_scale": 4.0}
    assert call_options(tiny_qwen_image(), settings) == {"true_cfg_scale": 4.0, "negative_prompt": " "}
    with pytest.raises(
        ArgumentError, match="`negative_prompt` must be left out for FluxPipeline, which draws without"
    ):
        call_options(tiny_flux(), GenerationSettings(model="m", negative_prompt="blurred"))
    with pytest.raises(ArgumentError, match="`negative_prompt` must be an argument of Flux2Pipeline"):
        call_options(tiny_flux2(), GenerationSettings(model="m", negative_prompt="blurred"))


def test_the_command_draws_and_says_where(models, tmp_path, capsys):
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"id": "fox", "prompt": "a red fox"}))
    command = ["generate", str(tmp_path / "prompts.jsonl"), str(tmp_path / "out"), "--model", models["sd"]]
    call = ["--num-inference-steps", "1", "--size", "32x32", "--device", "cpu"]
    assert main([*command, *call, "--best-of", "2", "--detector", models["detector"], "--batch-size", "3"]) == 0
    told = capsys.readouterr().out
    assert "mean best score after each round: -" in told and "1 images of 3 candidates in" in told
    assert [path.name for path in (tmp_path / "out" / "images").glob("*.png")] == ["fox-0.png"]
    assert main([*command, *call, "--best-of", "3"]) == 2
    assert "--best-of must be a power of two" in capsys.readouterr().err
    assert main(["generate", "a fox", str(tmp_path / "other")]) == 2
    assert "--model" in capsys.readouterr().err
