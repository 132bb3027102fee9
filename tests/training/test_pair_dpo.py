"""Training on preferences, from a run's pairs to a LoRA in the stock pipeline."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

from datasets_script.schema.training_record import TrainingRecord
from datasets_script.utils.errors import UserError
from hub_cards.kinds.lora import lora_payload
from training.denoiser.lora import LORA_FILE
from training.pair_dpo import main, parse

from ..helpers.made_pairs import make_pair, write_run
from ..helpers.tiny_pipelines import save_pipelines, tiny_flux, tiny_sdxl


SIDE = 48
FEW = ("--test_limit", "2", "--test_repeats", "1")
FREE = ("--guard_bands", "sharpness=:", "blockiness=:", "diversity=:")


def red_square(index: int, seed: int = 0):
    """A pair of a gradient and the same with a red square, with noise that differs in the square alone."""
    rng = np.random.default_rng((seed, index))
    down, across = np.mgrid[:SIDE, :SIDE] / SIDE
    low, high = rng.uniform(0, 120, 3), rng.uniform(120, 255, 3)
    share = (down if index % 2 else across)[..., None]
    pixels = (low + share * (high - low)).astype(np.uint8)
    top, left = (int(offset) for offset in rng.integers(0, SIDE - 20, 2))
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[top : top + 20, left : left + 20] = True
    flawed = np.where(mask[..., None], np.array([230, 20, 20], np.uint8), pixels)
    clean_noise, other = rng.standard_normal((2, 16, SIDE // 8, SIDE // 8)).astype(np.float16)
    cells = mask.reshape(SIDE // 8, 8, SIDE // 8, 8).any((1, 3))
    pair = make_pair(index, f"photo{index}.png")
    artifact = replace(pair.artifacts[0], mask=mask, part_mask=mask, bbox=(left, top, left + 20, top + 20))
    return replace(
        pair,
        source=Image.fromarray(pixels),
        clean=Image.fromarray(pixels),
        flawed=Image.fromarray(flawed),
        caption="a gradient" if index % 2 else "a slope",
        artifacts=(artifact,),
        clean_noise=clean_noise,
        flawed_noise=np.where(cells, other, clean_noise),
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    return save_pipelines({"flux": tiny_flux, "sdxl": tiny_sdxl}, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> str:
    return str(write_run(tmp_path_factory.mktemp("run") / "out", [red_square(index) for index in range(24)]))


def words(model: str, run: str, out: Path, *more: str) -> list[str]:
    return [
        *("--model_name_or_path", model, "--pairs", run, "--output_dir", str(out), "--use_cpu", "true"),
        *("--size", f"{SIDE}x{SIDE}", "--num_inference_steps", "2", "--guidance_scale", "3.5"),
        *("--lora_rank", "4", "--held_out", "2", "--test_share", "0.3", "--disable_tqdm", "true", *FREE, *more),
    ]


LENGTH = ("--max_sequence_length", "8")


@pytest.fixture(scope="module")
def trained(models, run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "lora"
    form = ("--margin", "0.2", "--clean_weight", "1")
    steps = ("--max_steps", "32", "--guard_steps", "16", "--save_steps", "16")
    main(words(models["flux"], run, out, *LENGTH, *form, *steps, "--batch_size", "4", "--learning_rate", "5e-3"))
    return out


def test_held_out_pairs_are_ranked_and_the_model_draws_clean_images_as_before(trained, run):
    record = TrainingRecord.read(trained)
    assert record.script == "training/pair_dpo.py" and record.steps == 32
    found = record.data["preference"]
    assert found["gap"] > 0.05 and found["preferred"] > 0.6
    assert found["clean_loss_rise"] <= 0.01
    assert found["pairs"] == record.data["held_out_pairs"]["pairs"]
    assert record.data["training_pairs"]["pairs"] + found["pairs"] == 24
    assert record.data["sources"] == [{"kind": "pairs", "source": "out"}]
    guards = {one["guard"]: one for one in record.data["guards"]}
    assert guards["denoising_loss"]["band"] == "no limit to +1%"
    # Readings: nothing before training, more at each.
    assert [step for step, _ in record.eval_loss] == [0, 16, 32] and record.eval_loss[0][1] == 0
    assert (trained / "pictures" / "step-000032.png").exists() and str(Path(run).parent) not in json.dumps(record.data)


def test_its_card_has_the_pairs_and_the_guards(trained):
    card = lora_payload(trained, "me/preferring", "apache-2.0").card
    for text in ("training/pair_dpo.py", "| denoising_loss | no limit to +1% |", "preference, gap", "No frequencies"):
        assert text in card


def test_the_lora_loads_into_the_stock_pipeline(trained, models):
    pipe = FluxPipeline.from_pretrained(models["flux"])
    pipe.set_progress_bar_config(disable=True)

    def draw() -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        size = {"height": SIDE, "width": SIDE, "max_sequence_length": 8}
        return pipe("a slope", **size, num_inference_steps=2, generator=generator, output_type="pt").images

    before = draw()
    pipe.load_lora_weights(trained)
    assert not torch.allclose(draw(), before, atol=1e-3)


def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(models, run, tmp_path):
    def train(out: Path, *more: str) -> None:
        steps = ("--max_steps", "4", "--guard_steps", "2", "--save_steps", "2", "--batch_size", "2", "--seed", "5")
        main(words(models["flux"], run, out, *LENGTH, *FEW, *steps, "--noise", "random", *more))

    train(tmp_path / "whole")
    # What a kill in step 3 leaves.
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "checkpoint-4")
    for name in (LORA_FILE, "training.json"):
        (tmp_path / "killed" / name).unlink()
    train(tmp_path / "killed")
    whole, killed = (load_file(tmp_path / name / LORA_FILE) for name in ("whole", "killed"))
    assert whole.keys() == killed.keys() and all(torch.equal(whole[name], killed[name]) for name in whole)
    assert TrainingRecord.read(tmp_path / "killed").resumed_from_step == 2
    with pytest.raises(UserError, match="--output_dir must be the folder of a run with margin"):
        train(tmp_path / "whole", "--margin", "0.5")
    # The same name, and other weights.
    other = shutil.copytree(models["flux"], tmp_path / "other" / Path(models["flux"]).name)
    file = other / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file({name: 1.5 * value for name, value in load_file(file).items()}, file, {"format": "pt"})
    with pytest.raises(UserError, match="--output_dir must be the folder of a run with base = "):
        train(tmp_path / "killed", "--model_name_or_path", str(other))


def test_a_model_that_predicts_noise_learns_with_random_noise(models, run, tmp_path):
    more = ("--noise", "random", "--form", "sigmoid", "--max_steps", "2", "--guard_steps", "2", "--batch_size", "1")
    main(words(models["sdxl"], run, tmp_path / "lora", *FEW, *more))
    record = TrainingRecord.read(tmp_path / "lora")
    assert record.steps == 2 and record.loss[0][1] == pytest.approx(np.log(2), rel=1e-3)
    assert record.data["pipeline"] == "StableDiffusionXLPipeline"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--test_share", "1"), "--test_share must lie between 0 and 1"),
        (("--prompts", "some.txt"), "--prompts must be left out, because pictures begin with the captions of"),
        (("--prompt_limit", "3"), "--prompt_limit must be left out, because pictures begin with the captions of"),
        (("--real_images", "photos"), "--real_images must be left out, because the clean images of held-out pairs"),
        (("--real_limit", "9"), "--real_limit must be left out, because held-out pairs take the place .*, got 9"),
        (("--guard_images", "9"), "--guard_images must be left out, because held-out pairs take the place"),
        (("--margin", "0"), "`margin` must be above 0, got 0"),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(more, message, tmp_path):
    with pytest.raises(UserError, match=message):
        parse([*words("none", "none", tmp_path), *more])
    with pytest.raises(UserError, match="--pairs must be given, folders of `artiagent synthesize` for example"):
        parse(["--model_name_or_path", "none"])


def test_pairs_without_noise_need_random_noise(models, tmp_path):
    pairs = [replace(red_square(index), clean_noise=None, flawed_noise=None) for index in range(8)]
    without = str(write_run(tmp_path / "without", pairs))
    with pytest.raises(UserError, match="--noise must be random for pairs that were made without"):
        main(words(models["flux"], without, tmp_path / "lora", *LENGTH))
