"""The script of reinforcement learning end to end on a tiny FLUX: it resumes exactly, and its LoRA is a stock one."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from PIL import Image
from safetensors.torch import load_file

from datasets_script.schema.training_record import TrainingRecord
from datasets_script.utils.errors import UserError
from hub_cards.cards import lora_card
from training.ddpo import main, make_parser, parse
from training.denoiser.lora import LORA_FILE

from ..helpers.paths import ROOT
from ..helpers.tiny_detectors import red_detector
from ..helpers.tiny_pipelines import tiny_flux


RECIPES = sorted((ROOT / "training" / "recipes" / "ddpo").glob("*.yaml"))
PROMPTS = ("a cat", "a dog", "a cup", "a boat")


def brightness(images, prompts):
    return [float(np.asarray(image).mean()) / 255 for image in images]


LIGHT = f"function={__name__}:brightness"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny FLUX, a detector of red, prompts and photos."""
    folder = tmp_path_factory.mktemp("world")
    tiny_flux().save_pretrained(folder / "flux")
    red_detector().save_pretrained(folder / "red")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    (folder / "photos").mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{index}.png")
    return folder


def train(world, out, *options):
    main(
        ["--model_name_or_path", str(world / "flux"), "--prompts", str(world / "prompts.txt"), "--size", "32x32"]
        + ["--num_inference_steps", "3", "--guidance_scale", "3.5", "--max_sequence_length", "8"]
        + ["--rewards", LIGHT, "--guard_detector", str(world / "red"), "--real_images", str(world / "photos")]
        + ["--guard_images", "1", "--held_out", "2", "--pictures_per_prompt", "2", "--output_dir", str(out)]
        + ["--prompts_per_step", "1", "--group_size", "4", "--batch_size", "4", "--lora_target_modules", "proj_out"]
        + ["--learning_rate", "0.03", "--ema_decay", "0.5", "--max_steps", "4", "--save_steps", "2"]
        + ["--guard_steps", "2", "--guard_bands", "sharpness=:", "blockiness=:", "diversity=:", "denoising_loss=:"]
        + ["second_detector=:", "--use_cpu", "true", "--disable_tqdm", "true", *options]
    )
    return json.loads((out / "training.json").read_text())


def test_a_run_that_is_resumed_is_one_that_was_not(world, tmp_path, capsys):
    whole = train(world, tmp_path / "whole")
    printed = capsys.readouterr().out
    assert "rewards: function; guards: sharpness, blockiness, diversity, second_detector" in printed
    assert "4 steps of 4 images = 1 prompts x 4 x 1 devices" in printed
    assert re.search(r"reward of held-out prompts: \d\.\d{4} -> \d\.\d{4}", printed)
    (tmp_path / "resumed").mkdir()
    for name in ("checkpoint-2", "pictures"):
        shutil.copytree(tmp_path / "whole" / name, tmp_path / "resumed" / name)
    for name in ("recipe.json", "log.jsonl"):
        shutil.copy(tmp_path / "whole" / name, tmp_path / "resumed")
    resumed = train(world, tmp_path / "resumed")
    assert (whole["resumed_from_step"], resumed["resumed_from_step"]) == (None, 2)
    changing = ("seconds", "resumed_from_step")
    assert {k: v for k, v in whole.items() if k not in changing} == {
        name: value for name, value in resumed.items() if name not in changing
    }
    # The file's header has no fixed order.
    first, second = (load_file(tmp_path / name / LORA_FILE) for name in ("whole", "resumed"))
    assert first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert len(log) == 4 and all(entry["first_ratio"] == 1 for entry in log)

    # What is recorded
    assert str(tmp_path) not in json.dumps(whole) and str(world) not in json.dumps(whole)
    record = TrainingRecord.read(tmp_path / "whole")
    assert record.script == "training/ddpo.py" and record.method.peft
    rewards = record.data["rewards"]
    assert rewards == {"function": {"weight": 1.0, "score": "function", "function": LIGHT.partition("=")[2]}}
    # Only those that guard are encoded.
    assert record.data["real_images"] is None and record.data["guard_images"]["count"] == 1
    assert record.data["scheduler"] == record.data["pipeline_scheduler"] == "FlowMatchEulerDiscreteScheduler"
    assert record.data["noisy_steps"] == [0, 1] and record.data["prompts"]["count"] == 2
    assert {guard["guard"].partition(":")[0] for guard in record.data["guards"]} == {
        *("sharpness", "blockiness", "diversity", "second_detector", "denoising_loss"),
    }
    assert [one["trained_against"] for one in record.data["frequencies"]] == [False]

    card = lora_card("me/lora", record, [], "mit")
    assert "training/ddpo.py" in card and "test_ddpo:brightness" in card

    # What is trained
    pipeline = FluxPipeline.from_pretrained(world / "flux")
    pipeline.load_lora_weights(str(tmp_path / "whole"))
    call = {"height": 32, "width": 32, "num_inference_steps": 3, "max_sequence_length": 8, "output_type": "np"}
    with_lora = pipeline("a cat", generator=torch.Generator().manual_seed(0), **call).images
    pipeline.unload_lora_weights()
    without = pipeline("a cat", generator=torch.Generator().manual_seed(0), **call).images
    assert record.data["kept_step"] == 0 or not np.array_equal(with_lora, without)

    # Before anything is loaded.
    with pytest.raises(UserError, match="must be the folder of a run with model_name_or_path = missing"):
        train(world, tmp_path / "resumed", "--model_name_or_path", str(world / "missing"))
    with pytest.raises(UserError, match="must be the folder of a run with held_out = 1, got '.*' with held_out = 2"):
        train(world, tmp_path / "resumed", "--prompt_limit", "3", "--held_out", "1")


def test_a_detector_among_the_rewards_is_no_guard(world, tmp_path):
    rewards = ["--rewards", LIGHT, f"detector={world / 'red'},weight=0.1"]
    with pytest.raises(UserError, match="--guard_detector must be another than those of --rewards, got 'red'"):
        train(world, tmp_path / "out", *rewards)
    record = train(world, tmp_path / "out", *rewards, "--guard_detector", "none", "--max_steps", "1")
    (frequency,) = record["data"]["frequencies"]
    assert frequency["trained_against"] and record["data"]["rewards"]["detector"]["weight"] == 0.1
    assert record["recipe"]["rewards"][1]["model"] == "red"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_parse(recipe, tmp_path):
    given = ["--prompts", "p.txt", "--guard_detector", "g", "--real_images", "r", "--output_dir", str(tmp_path)]
    given = given if recipe.stem != "ddpo_cpu_small" else given[2:]
    model, rewards, policy, guards, loop, values = parse(["--config", recipe.stem, *given])
    assert model.model_name_or_path and rewards and loop.max_steps > 0 and guards.detectors == ["g"]
    assert policy.images % policy.batch_size == 0 and values["rewards"][0]["kind"] == rewards[0].kind


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rewards"], "expected at least one argument|--rewards must name at least one"),
        (["--rewards", "beauty=x"], "--rewards must have a kind among"),
        (["--group_size", "0"], "`group_size` must be at least 1, got 0"),
        (["--batch_size", "5"], "`batch_size` must divide the 4 images of a step"),
    ],
)
def test_arguments_are_checked(options, message, world, tmp_path):
    with pytest.raises((UserError, SystemExit), match=message if options != ["--rewards"] else None):
        train(world, tmp_path / "out", *options)


def test_help_teaches():
    text = make_parser().format_help()
    assert "python -m training.ddpo --config" in text and 'P("No")' in text and "--noise_level" in text
