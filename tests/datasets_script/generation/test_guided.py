"""`artiagent generate` with guides and rewards, and `artiagent compare` of what they chose or guided."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, LCMScheduler
from safetensors.torch import load_file, save_file

from datasets_script import PixelDetector, RewardModel, compare, generate
from datasets_script.cli.main import main
from datasets_script.schema.generation import GenerationRecord, read_images, read_lines
from datasets_script.utils.errors import UserError

from ...helpers.tiny_detectors import tiny_network, tiny_record
from ...helpers.tiny_pipelines import save_pipelines, tiny_sd
from ...helpers.tiny_rewards import tiny_reward


PROMPTS = ["a red fox", "two hands holding a cup"]
CALL: dict[str, Any] = {"num_inference_steps": 2, "size": "32x32", "device": "cpu"}
OPTIONS = ["--num-inference-steps", "2", "--size", "32x32", "--device", "cpu"]


def tiny_sd_of_lcm() -> DiffusionPipeline:
    pipe = tiny_sd()
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    return pipe


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    """Folders of text-to-image models, two detectors and a reward model with random weights."""
    folder = tmp_path_factory.mktemp("models")
    for name, trunk in (("detector", "mit_b0"), ("other", "convnext_tiny")):
        PixelDetector(tiny_network(trunk), tiny_record()).save_pretrained(folder / name)
    tiny_reward().save_pretrained(folder / "reward")
    saved = save_pipelines({"sd": tiny_sd, "lcm": tiny_sd_of_lcm}, folder)
    return {**saved, **{name: str(folder / name) for name in ("detector", "other", "reward")}}


def draw(models: dict[str, str], out: Path, **changes: Any) -> GenerationRecord:
    return generate(changes.pop("prompts", PROMPTS), out, **{"model": models["sd"], **CALL, **changes})


def guides(models: dict[str, str], **changes: Any) -> dict[str, Any]:
    """Return the arguments of a search by a reward, guided by two detectors."""
    both = [models["detector"], models["other"]]
    return {"guide": both, "guide_strength": 0.3, "reward": models["reward"], "best_of": 2, **changes}


@pytest.fixture(scope="module")
def plain(models, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "plain"
    draw(models, out)
    return out


@pytest.fixture(scope="module")
def guided(models, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "guided"
    draw(models, out, **guides(models))
    return out


def pictures_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "images").glob("*.png"))}


def test_no_strength_draws_the_images_of_no_guide(models, plain, tmp_path):
    record = draw(models, tmp_path / "idle", guide=models["detector"], guide_strength=0)
    assert pictures_of(tmp_path / "idle") == pictures_of(plain)
    assert record.guide is not None and record.guided_steps == ()
    assert GenerationRecord.read(plain).guide is None


def test_a_guided_run_differs_and_records_its_guides(models, plain, guided):
    record = GenerationRecord.read(guided)
    assert record.guide is not None and record.candidates == 6
    assert [guide["detector"]["model"] for guide in record.guide["detectors"]] == ["detector", "other"]
    assert record.guide["rewards"] == [] and record.guide["settings"]["strength"] == 0.3
    # PNDM evaluates its first step twice. The last batch is one candidate.
    assert [step["step"] for step in record.guided_steps] == [0, 1, 2]
    assert all(0 < loss < 1 for step in record.guided_steps for (loss,) in step["losses"])
    assert str(guided.parent.parent) not in json.dumps([record.guide, record.scorer])
    first = {line["id"]: line["seed"] for line in read_lines(guided / "generate.jsonl") if line["number"] == 0}
    assert first == {image.id: image.seed for image in read_images(plain)}
    assert not set(pictures_of(guided).values()) & set(pictures_of(plain).values())


def test_a_guided_run_is_continued_with_the_same_guide_alone(models, guided, tmp_path):
    out = Path(shutil.copytree(guided, tmp_path / "cut"))
    lines = (guided / "generate.jsonl").read_bytes().splitlines(keepends=True)
    (out / "generate.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:-9])
    for changes, entry in (
        ({"guide_strength": 0.2}, "settings.guide_strength"),
        ({"guide": models["other"]}, "settings.guide"),
        ({"guide_reward": models["reward"]}, "settings.guide_reward"),
    ):
        with pytest.raises(UserError, match=f"holds a run with another {entry};"):
            draw(models, out, **guides(models, **changes))
    draw(models, out, **guides(models))
    assert (out / "generate.jsonl").read_bytes() == b"".join(lines)
    assert pictures_of(out) == pictures_of(guided)


def test_a_guide_with_other_weights_is_another_guide(models, tmp_path):
    guide = shutil.copytree(models["detector"], tmp_path / "guide")
    draw(models, tmp_path / "out", prompts=PROMPTS[:1], guide=str(guide))
    shutil.rmtree(guide)
    shutil.copytree(models["other"], guide)
    with pytest.raises(UserError, match="holds a run with another guide.detectors;"):
        draw(models, tmp_path / "out", guide=str(guide))


def test_published_strengths_are_the_default(models, tmp_path):
    record = draw(models, tmp_path / "out", prompts=PROMPTS[0], guide_reward=models["reward"])
    assert record.guide is not None and record.guide["settings"]["strength"] == 0.05
    assert record.guide["rewards"] == [RewardModel.from_pretrained(models["reward"], device="cpu").identity()]
    assert record.chosen_by == tuple(record.guide["rewards"])


def test_who_guided_the_images_does_not_judge_them(models, plain, guided, tmp_path):
    by_all = {"detectors": (models["detector"], models["other"]), "reward": models["reward"], "diversity": "none"}
    comparison = compare([plain, guided], tmp_path / "all", device="cpu", **by_all)
    chosen = {of.column.name: of.changes[0].chosen for of in comparison.scores}
    assert not chosen.pop("sharpness") and len(chosen) == 7 and all(chosen.values())
    one = draw(models, tmp_path / "one", guide=models["detector"])
    assert one.scorer is None
    comparison = compare([plain, tmp_path / "one"], tmp_path / "of one", device="cpu", **by_all)
    marked = {of.column.name for of in comparison.scores if of.changes[0].chosen}
    assert marked == {f"detector.{name}" for name in ("artifact_frequency", "smoothed_maximum", "artifact_area")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guide_strength": 0.1}, "`guide_strength` must come with `guide` or `guide_reward`, got neither"),
        ({"guide": "embedded", "guide_strength": -1.0}, "`guide_strength` must be at least 0 and finite, got -1.0"),
        ({"guide": "embedded", "guide_strength": float("nan")}, "`guide_strength` must be at least 0 and finite"),
        ({"guide": "no such"}, "`guide` must be a folder or a repository on the Hub of a pixel detector"),
        ({"guide_reward": "no such"}, "`guide_reward` must be a folder or a repository on the Hub of a reward model"),
    ],
)
def test_what_cannot_guide_is_refused(changes, message, models, tmp_path):
    with pytest.raises(UserError, match=message):
        draw(models, tmp_path / "out", **changes)
    assert not (tmp_path / "out" / "run.json").exists()


def test_what_cannot_be_guided_is_refused_with_the_next_step(models, tmp_path, capsys):
    command = ["generate", "a fox", str(tmp_path / "out"), *OPTIONS, "--model", models["lcm"], "--guide", "embedded"]
    assert main(command) == 2
    told = capsys.readouterr().err
    assert "--guide must come with a model that can be guided" in told and "got LCMScheduler" in told
    assert "give its folder as --model, or leave out --guide" in told
    assert not (tmp_path / "out" / "run.json").exists()


def test_the_commands_take_rewards_and_guides(models, tmp_path, capsys):
    fox = ["generate", "a red fox", "--model", models["sd"], *OPTIONS]
    assert main([*fox, str(tmp_path / "base")]) == 0
    guide = ["--guide", models["detector"], "--guide-reward", models["reward"], "--guide-strength", "0.2"]
    assert main([*fox, str(tmp_path / "best"), "--best-of", "2", "--reward", models["reward"], *guide]) == 0
    assert "mean best score after each round: " in capsys.readouterr().out
    (image,) = read_images(tmp_path / "best")
    scored = RewardModel.from_pretrained(models["reward"], device="cpu")(tmp_path / "best" / "images" / "00000-0.png")
    assert image.score == scored
    record = GenerationRecord.read(tmp_path / "best")
    assert [len(step["losses"]) for step in record.guided_steps] == [2, 2, 2]
    folders, to = [str(tmp_path / "base"), str(tmp_path / "best")], str(tmp_path / "page")
    judges = ["--detector", models["other"], "--reward", models["reward"]]
    assert main(["compare", *folders, *judges, "--to", to, "--device", "cpu"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| reward")]
    assert "†" in row


def test_a_guide_without_finite_numbers_is_told(models, tmp_path):
    broken = PixelDetector(tiny_network("mit_b0"), tiny_record())
    broken.save_pretrained(tmp_path / "broken")
    weights = load_file(tmp_path / "broken" / "model.safetensors")
    save_file(
        {
            name: torch.full_like(weight, torch.nan) if weight.is_floating_point() else weight
            for name, weight in weights.items()
        },
        tmp_path / "broken" / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(UserError, match="`guide` must give finite numbers, got NaN or infinity; guide by another"):
        draw(models, tmp_path / "out", guide=str(tmp_path / "broken"))
