"""The script that treats models: losses, guards, resuming, records, and LoRAs that load into stock pipelines."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from diffusers import FluxPipeline, StableDiffusionXLPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

from datasets_script.schema.training_record import TrainingRecord
from datasets_script.utils.errors import UserError
from diffusers_artifact import EMBEDDED_MODEL, ArtifactInjectionPipeline
from training.denoiser.lora import LORA_FILE
from training.denoiser.rollout import Denoiser, SamplingSettings
from training.treat_lora import PIXELS, gradient_steps, main, parse, pixel_loss

from ..helpers.paths import ROOT
from ..helpers.tiny_detectors import red_detector, square
from ..helpers.tiny_pipelines import tiny_sdxl


RECIPES = sorted((ROOT / "training" / "recipes" / "treat_lora").glob("*.yaml"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny SDXL, a detector of red squares, photos with and without, and prompts."""
    folder = tmp_path_factory.mktemp("treating")
    tiny_sdxl().save_pretrained(folder / "sdxl")
    red_detector().save_pretrained(folder / "red")
    (folder / "photos").mkdir()
    for number in range(6):
        box = (10, 10, 40, 40) if number % 2 else None
        square(box, seed=number, size=(96, 64)).save(folder / "photos" / f"{number}.png")
    (folder / "photos" / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "grey noise"}\n')
    (folder / "prompts.txt").write_text("\n".join(f"a cat number {number}" for number in range(5)))
    return folder


def options(folder, out, *more: str) -> list[str]:
    return [
        *("--model_name_or_path", str(folder / "sdxl"), "--prompts", str(folder / "prompts.txt")),
        *("--detector", str(folder / "red"), "--guard_detector", "embedded", "--real_images", str(folder / "photos")),
        *("--num_inference_steps", "3", "--guidance_scale", "3", "--size", "64x64", "--lora_rank", "2"),
        *("--held_out", "2", "--guard_images", "2", "--accumulation", "2", "--max_steps", "4", "--guard_steps", "2"),
        *("--save_steps", "1", "--learning_rate", "0.03", "--max_grad_norm", "100", "--use_cpu", "true"),
        *("--disable_tqdm", "true", "--output_dir", str(out)),
        # A random model may change as it likes.
        *("--guard_bands", "sharpness=:", "blockiness=:", "diversity=:", "second_detector=:", "denoising_loss=:"),
        *more,
    ]


@pytest.fixture(scope="module")
def whole(folder):
    main(options(folder, folder / "whole"))
    return folder / "whole"


def test_treating_lowers_the_map_of_held_out_pictures_and_loads_into_the_stock_pipeline(folder, whole):
    record = TrainingRecord.read(whole)
    assert record.steps == 4 and len(record.loss) == 4 and record.method.peft and not record.data["stopped"]
    first, second = record.data["frequencies"]
    assert first["detector"] == "red" and first["trained_against"] and second["detector"] == "embedded"
    assert not second["trained_against"] and first["frequency"]["n"] == 4 and first["frequency"]["groups"] == 2
    assert record.data["kept_step"] > 0 and first["mean_map"]["second"] < first["mean_map"]["first"]
    assert [guard["guard"] for guard in record.data["guards"]] == [
        *("sharpness", "blockiness", "diversity", "second_detector:embedded", "denoising_loss")
    ]
    assert str(folder) not in (whole / "training.json").read_text()
    assert record.data["prompts"]["count"] == 3 and record.data["real_images"]["count"] == 4

    sheet = read_sheet(whole / "pictures" / "after.png")
    assert (whole / "pictures" / "before.png").read_bytes() == (whole / "pictures" / "step-000000.png").read_bytes()
    assert not np.array_equal(sheet, read_sheet(whole / "pictures" / "before.png"))
    pipe = StableDiffusionXLPipeline.from_pretrained(folder / "sdxl")
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(whole)
    prompts = (folder / "prompts.txt").read_text().splitlines()
    images = pipe(
        [prompts[int(name)] for name in record.data["held_out"]["ids"] for _ in range(2)],
        num_inference_steps=3,
        guidance_scale=3.0,
        height=64,
        width=64,
        generator=[torch.Generator().manual_seed(seed) for seed in record.data["held_out"]["seeds"]],
    ).images
    # Two side by side, with a border of 2 px around each.
    drawn = [sheet[y : y + 64, x : x + 64] for y in (2, 68) for x in (2, 68)]
    assert all(np.abs(np.asarray(image, int) - one).max() <= 1 for image, one in zip(images, drawn, strict=True))


def read_sheet(path) -> np.ndarray:
    return np.asarray(Image.open(path), dtype=int)


def test_a_run_that_was_cut_off_ends_with_the_same_lora(folder, whole):
    out = folder / "resumed"
    out.mkdir()
    shutil.copytree(whole / "checkpoint-3", out / "checkpoint-3")
    for name in ("recipe.json", "log.jsonl"):
        shutil.copy(whole / name, out)
    main(options(folder, out))
    record, before = TrainingRecord.read(out), TrainingRecord.read(whole)
    assert record.resumed_from_step == 3 and before.resumed_from_step is None
    first, second = load_file(whole / LORA_FILE), load_file(out / LORA_FILE)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert (record.loss, record.data) == (before.loss, before.data)
    assert (out / "log.jsonl").read_text() == (whole / "log.jsonl").read_text()
    with pytest.raises(UserError, match="must be the folder of a run with gamma = 0.5"):
        main(options(folder, out, "--gamma", "0.5"))
    # Before anything is loaded.
    with pytest.raises(UserError, match="must be the folder of a run with model_name_or_path = missing"):
        main(options(folder, out, "--model_name_or_path", str(folder / "missing")))
    other = shutil.copytree(folder / "sdxl", folder / "other" / "sdxl")
    change_weights(other / "unet" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(UserError, match="must be the folder of a run with base = "):
        main(options(folder, out, "--model_name_or_path", str(other)))
    shutil.copy(folder / "photos" / "1.png", folder / "photos" / "9.png")
    try:
        with pytest.raises(UserError, match="must be the folder of a run with data = "):
            main(options(folder, out))
    finally:
        (folder / "photos" / "9.png").unlink()


def change_weights(file) -> None:
    weights = load_file(file)
    save_file({name: 1.5 * value for name, value in weights.items()}, file, {"format": "pt"})


def test_a_guard_stops_a_run(folder, whole):
    """The loss on real images, which a random model changes by less than it may usually."""
    readings = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert len(readings) == 4
    out = folder / "stopped"
    main(options(folder, out, "--guard_bands", "denoising_loss=-1e-9:1e-9"))
    record = TrainingRecord.read(out)
    assert record.steps == 2 and record.data["kept_step"] == 0
    assert "denoising_loss moved by" in record.data["stopped"]
    assert all(not value.any() for name, value in load_file(out / LORA_FILE).items() if "lora_B" in name)


def test_the_model_of_the_package_is_treated_from_photos(folder):
    """From noised photos, with two detectors, gradients through a random number of steps, and no judge."""
    out, photos = folder / "embedded", folder / "plain"
    shutil.copytree(folder / "photos", photos, ignore=shutil.ignore_patterns("*.jsonl"))
    main(
        [
            *("--model_name_or_path", "embedded", "--start_photos", str(photos), "--start_sigma", "0.6"),
            *("--detector", "embedded", str(folder / "red"), "--guard_detector", "none", "--real_images", "none"),
            *("--gamma", "0", "--num_inference_steps", "3", "--gradient_steps", "random", "--size", "64x64"),
            *("--held_out", "2", "--max_steps", "1", "--guard_steps", "1", "--accumulation", "1", "--batch_size", "2"),
            *("--lora_rank", "4", "--lora_alpha", "2", "--ema_decay", "0", "--learning_rate", "1e-2"),
            *("--guard_bands", "sharpness=:", "blockiness=:", "diversity=:"),
            *("--use_cpu", "true", "--disable_tqdm", "true", "--output_dir", str(out)),
        ]
    )
    record = TrainingRecord.read(out)
    assert record.base.id == "embedded" and record.data["guard_detectors"] == {}
    assert [guard["guard"] for guard in record.data["guards"]] == ["sharpness", "blockiness", "diversity"]
    assert set(record.data["detectors"]) == {"embedded", "red"}
    parts = ArtifactInjectionPipeline.from_pretrained(EMBEDDED_MODEL).components
    names = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    pipe = FluxPipeline(
        scheduler=parts["scheduler"], vae=parts["vae"], transformer=parts["transformer"], **dict.fromkeys(names)
    )
    pipe.load_lora_weights(out)
    (config,) = pipe.transformer.peft_config.values()
    assert (config.r, config.lora_alpha) == (4, 2)


def test_losses_of_a_map():
    maps = torch.tensor([[[0.05, 0.2], [0.6, 0.0]], [[0.0, 0.0], [0.1, 0.05]]], requires_grad=True)
    wanted = {
        "threshold": (0.4 / 2, [[0, 0.25], [0.25, 0], [0, 0], [0, 0]]),
        "all": ((0.2125 + 0.0375) / 2, [[0.125, 0.125]] * 4),
        "maximum": ((0.6 + 0.1) / 2, [[0, 0], [0.5, 0], [0, 0], [0.5, 0]]),
    }
    for pixels in PIXELS:
        loss = pixel_loss(maps, pixels, 0.1)
        (gradient,) = torch.autograd.grad(loss, maps)
        value, slopes = wanted[pixels]
        assert loss.item() == pytest.approx(value)
        assert torch.allclose(gradient.reshape(4, 2), torch.tensor(slopes))


def test_gradient_steps():
    generator = torch.Generator().manual_seed(0)
    denoiser = Denoiser(tiny_sdxl(), SamplingSettings(10, 3.0, 64, 64))
    for given, wanted in (("25%", 2), ("1%", 1), ("100%", 10), ("3", 3)):
        assert gradient_steps(given, denoiser, generator) == wanted
    drawn = {gradient_steps("random", denoiser, generator) for _ in range(100)}
    assert drawn == set(range(1, 11))
    for given in ("11", "0", "200%"):
        with pytest.raises(UserError, match="must lie between 1 and the 10 evaluations"):
            gradient_steps(given, denoiser, generator)
    with pytest.raises(UserError, match="must be a share such as 25%, a number or random, got 'last'"):
        gradient_steps("last", denoiser, generator)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--guard_detector", "RED"], "--guard_detector must be another than those of --detector, got 'red'"),
        (["--held_out", "5"], "--held_out must be smaller than the 5 different ones there are"),
        (["--guard_images", "6"], "--guard_images must be smaller than the 6 different ones there are"),
        (["--real_images", "none"], "--real_images must name a folder for --gamma above 0"),
        (["--size", "64"], "--size must be width and height in pixels"),
        (["--start_sigma", "0.5"], "--start_photos and --start_sigma must be given together"),
        (["--guard_bands", "beauty=0:1"], "--guard_bands must be NAME=LOW:HIGH with a name of second_detector, "),
        (["--guard_bands", "sharpness=a:1"], "--guard_bands must be NAME=LOW:HIGH"),
        (["--gradient_steps", "9"], "--gradient_steps must lie between 1 and the 3 evaluations"),
        (["--detector", "nowhere/at-all"], "`detector` must be a folder or a repository"),
        (["--confidence", "1"], r"--confidence must lie in \[0, 1\)"),
    ],
)
def test_a_mistake_is_told(folder, tmp_path, changes, message):
    given = [str(folder / "red") if word == "RED" else word for word in changes]
    with pytest.raises(UserError, match=message):
        main(options(folder, tmp_path, *given))
    assert not (tmp_path / "recipe.json").exists()


def test_what_must_be_given(folder, tmp_path):
    for name, message in (
        ("--detector", "--detector must name a pixel detector to train against"),
        ("--guard_detector", "--guard_detector must name a pixel detector that is never trained against"),
        ("--real_images", "--real_images must name a folder of real images"),
        ("--prompts", "--prompts must be given"),
        ("--model_name_or_path", "--model_name_or_path must be set"),
        ("--output_dir", "--output_dir must be given"),
    ):
        words = options(folder, tmp_path)
        place = words.index(name)
        with pytest.raises(UserError, match=message):
            parse(words[:place] + words[place + 2 :])


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_understood(recipe):
    words = ["--config", str(recipe)]
    if recipe.stem != "treat_cpu_small":
        words += ["--prompts", "p.txt", "--detector", "a", "--guard_detector", "b", "--real_images", "photos"]
    model_args, script_args, guard_args, loop_args, given = parse(words)
    assert yaml.safe_load(recipe.read_text()).keys() - {"output_dir"} <= given.keys()
    settings = model_args.sampling()
    images = script_args.batch_size * script_args.accumulation
    assert (settings.width, settings.height) == ((256, 256) if images == 2 else (1024, 1024))
    assert images == (2 if recipe.stem == "treat_cpu_small" else 4)
    assert loop_args.max_steps % loop_args.guard_steps == 0 and guard_args.has_real_images
