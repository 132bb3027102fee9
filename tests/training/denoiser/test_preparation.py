"""What is trained on, what is held out of it, and what tells one run from another."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from datasets_script.utils.errors import UserError
from training.denoiser.arguments import NONE, DenoiserArguments, GuardArguments
from training.denoiser.data import Item, image_items, prompt_items, split, without
from training.denoiser.loop import LoopArguments
from training.denoiser.lora import LORA_FILE, LoraSettings, add_lora, save_lora
from training.denoiser.preparation import Preparation, prepare
from training.denoiser.rollout import Denoiser, SamplingSettings

from ...helpers.tiny_detectors import square
from ...helpers.tiny_pipelines import save_pipelines, tiny_flux


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A tiny FLUX, a LoRA of it, photos, and the same photos under other names, with one more."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "photos").mkdir()
    for number in range(10):
        square((10, 10, 40, 40), seed=number, size=(64, 64)).save(folder / "photos" / f"{number}.png")
    (folder / "copies").mkdir()
    for path in (folder / "photos").iterdir():
        shutil.copy(path, folder / "copies" / f"copy-{path.name}")
    square((0, 0, 9, 9), seed=99, size=(64, 64)).save(folder / "copies" / "more.png")
    save_pipelines({"flux": tiny_flux}, folder)
    subject = Denoiser(tiny_flux(), SamplingSettings(2, 3.5, 32, 32))
    for weight in add_lora(subject, LoraSettings(rank=2), seed=1).values():
        weight.data.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    save_lora(subject, folder / "subject")
    return folder


def prepared(world: Path, real: str, base_lora: str | None = None, seed: int = 0, **guards) -> Preparation:
    return prepare(
        DenoiserArguments(
            model_name_or_path=str(world / "flux"),
            size="32x32",
            num_inference_steps=2,
            max_sequence_length=8,
            start_photos=str(world / "photos"),
            start_sigma=0.6,
            base_lora=base_lora,
            lora_rank=2,
        ),
        GuardArguments(
            guard_detector=[NONE],
            real_images=real if real == NONE else str(world / real),
            pictures_per_prompt=1,
            **{"held_out": 3, "guard_images": 3, **guards},
        ),
        LoopArguments(output_dir=str(world / "run"), use_cpu=True, seed=seed),
        trains_on_real=real != NONE,
    )


@pytest.mark.parametrize("real", ["photos", "copies"])
def test_what_is_held_out_or_guards_is_not_trained_on(world, real, capsys):
    """Start photos and real images of one folder, and of two folders with equal files."""
    given = image_items(str(world / real), "real_images", 256, 0)
    guarding = {number_of(item) for item in split(given, 3, 0, "guard_images")[1]}
    found = prepared(world, real)
    assert found.real is not None
    held_out = {number_of(name) for name in found.facts["held_out"]["ids"]}
    trained, on_real = ({number_of(item) for item in some.items} for some in (found.train, found.real))
    assert len(held_out) == len(guarding) == 3 and trained and on_real
    assert not trained & (held_out | guarding) and not on_real & (held_out | guarding)
    for some in (found.train, found.real):
        assert some.clean is not None and len(some.clean) == len(some)
    everything = {number_of(item) for item in given}
    assert trained == everything - {"more.png"} - held_out - guarding and on_real == everything - held_out - guarding
    left_out = 10 + len(given) - len(trained) - len(on_real) - len(held_out) - len(guarding)
    assert f"{left_out} prompts or images are left out, as they are equal to" in capsys.readouterr().out


def number_of(one) -> str:
    return getattr(one, "id", one).removeprefix("copy-")


def test_there_must_be_something_left_to_train_on(world):
    with pytest.raises(UserError, match="--start_photos must have images besides those held out and those that guard"):
        prepared(world, "photos", held_out=9, guard_images=9, seed=1)
    few = [Item("a", "", world / "photos" / "1.png")]
    with pytest.raises(
        UserError, match="--start_photos must have images .*, got none; give more, or lower --held_out"
    ):
        without(few, [Item("b", "a text", world / "copies" / "copy-1.png")], "start_photos")
    # Prompts have no images.
    prompts = [Item("a", "a cat")]
    assert without(prompts, [*few, Item("b", "a cat")], "start_photos") == prompts and without([], few, "x") == []


def test_equal_prompts_are_on_one_side(tmp_path):
    texts = [f"a cat number {number % 6}" for number in range(24)]
    (tmp_path / "prompts.txt").write_text("\n".join(texts))
    items = prompt_items(str(tmp_path / "prompts.txt"))
    for seed in range(5):
        training, held_out = split(items, 3, seed, "held_out")
        drawn = [item.prompt for item in held_out]
        assert len(set(drawn)) == len(drawn) == 3 and len(training) == 12
        assert not {item.prompt for item in training} & set(drawn)
        assert [items.index(item) for item in training] == sorted(items.index(item) for item in training)
    with pytest.raises(UserError, match="--held_out must be smaller than the 6 different ones there are, got 6"):
        split(items, 6, 0, "held_out")


def test_equal_images_of_a_folder_are_on_one_side(tmp_path):
    for number in range(8):
        square(None, seed=number % 4, size=(64, 64)).save(tmp_path / f"{number}.png")
    training, held_out = split(image_items(str(tmp_path), "real_images", None, 0), 2, 0, "guard_images")
    numbers = [{int(item.id[0]) % 4 for item in some} for some in (training, held_out)]
    assert len(held_out) == 2 and len(training) == 4 and numbers[0].isdisjoint(numbers[1])


def test_a_run_is_told_by_its_base_and_the_lora_beneath(world, tmp_path):
    subject = shutil.copytree(world / "subject", tmp_path / "subject")
    plain, first = prepared(world, NONE), prepared(world, NONE, str(subject))
    assert prepared(world, NONE, str(world / "subject")).identity({}) == first.identity({})
    assert plain.facts["base_lora"] is None and first.facts["base_lora"].startswith("sha256:")
    assert plain.base.revision is not None and plain.base.revision in plain.identity({})["base"]
    # The same name, and other weights.
    weights = load_file(subject / LORA_FILE)
    save_file({name: 1.5 * value for name, value in weights.items()}, subject / LORA_FILE, {"format": "pt"})
    changed = prepared(world, NONE, str(subject))
    assert len({one.identity({})["base"] for one in (plain, first, changed)}) == 3
    assert plain.identity({})["data"] != plain.identity({"rewards": "others"})["data"]


def test_what_lies_beside_images_is_no_image(tmp_path):
    """As in the folder of photos of `artiagent demo`, which `treat_cpu_small` takes."""
    square((0, 0, 9, 9), size=(64, 64)).save(tmp_path / "a.png")
    (tmp_path / "annotations.json").write_text("{}")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "prompt": "a wall"}\n')
    assert [(item.id, item.prompt) for item in image_items(str(tmp_path), "real_images", None, 0)] == [
        ("a.png", "a wall")
    ]
