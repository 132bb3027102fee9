"""The small model for training from scratch, and the training of its vision tower."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from datasets_script.detection.questions import TASKS, question
from datasets_script.utils.errors import UserError
from tests.benchmarks.learning_seams import seam_auc
from tests.benchmarks.learning_towers import centred_crops, hide, image_scores, token_logits
from tests.helpers.made_pairs import HEIGHT, WIDTH, make_pair, write_run
from training.vlm import small_model, tower
from training.vlm.small_model import (
    PLACE_SCALE,
    STRIDE,
    conversation_texts,
    make_model,
    make_processor,
    place_codes,
    train_tokenizer,
)
from training.vlm.tower import PairArrays, TowerTraining, detector_of, load_pairs, train


SIDE = 64


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("pairs") / "run", [make_pair(index) for index in range(3)])


@pytest.fixture(scope="module")
def base(run, tmp_path_factory):
    """Make a base model with the command."""
    folder = tmp_path_factory.mktemp("small") / "base"
    small_model.main([str(folder), "--dataset_name", str(run), "--side", str(SIDE)])
    return folder


def load(folder):
    return AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)


def noisy_pairs(number, seed=0):
    """Make pairs of smooth images, with a square of noise as artifact."""
    generator = np.random.default_rng(seed)
    colors = generator.integers(0, 256, (number, 2, 2, 3), dtype=np.uint8)
    clean = np.stack([np.asarray(Image.fromarray(one).resize((SIDE, SIDE), 2)) for one in colors])
    masks = np.zeros((number, SIDE, SIDE), dtype=bool)
    for mask in masks:
        y, x = STRIDE * generator.integers(0, SIDE // STRIDE, 2)
        mask[y : y + STRIDE, x : x + STRIDE] = True
    noise = generator.integers(0, 256, clean.shape, dtype=np.uint8)
    return PairArrays(np.stack([clean, np.where(masks[..., None], noise, clean)], axis=1), masks, masks)


def test_each_token_of_the_image_begins_with_the_code_of_its_place(base):
    model, processor = load(base)
    rows = SIDE // STRIDE
    texts = [question(task, "llava") for task in TASKS]
    messages = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}] for text in texts]
    prompts = processor.apply_chat_template(messages, add_generation_prompt=True)
    image = Image.new("RGB", (WIDTH, HEIGHT))
    weights = model.model.language_model.wpe.weight
    for prompt in prompts:
        tokens = processor(images=image, text=prompt, return_tensors="pt").input_ids[0]
        places = torch.nonzero(tokens == model.config.image_token_index)[:, 0]
        torch.testing.assert_close(weights[places], PLACE_SCALE * place_codes(rows, weights.shape[1]))


def test_codes_tell_places_apart_and_near_ones_are_alike():
    codes = place_codes(16, 128)
    assert torch.isclose(codes.square().mean(), torch.tensor(1.0))
    likeness = (codes @ codes.T) / 128
    assert (likeness - 2 * torch.eye(256)).max() < 0.97
    right, below, far = likeness[0, 1], likeness[0, 16], likeness[0, 255]
    assert torch.isclose(right, below)
    assert right > likeness[0, 17] > far


def test_the_tokenizer_loses_nothing_and_splits_numbers(run):
    texts = list(conversation_texts(str(run)))
    tokenizer = train_tokenizer(texts)
    for text in (*texts, "Ünseen 0.25 words\n[0.19, 0.28]"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.tokenize("0.25") == ["0", ".", "2", "5"]


def test_the_command_writes_a_model_that_loads_and_depends_on_the_seed_alone(base, run):
    model, processor = load(base)
    again, other = (make_model(make_processor(processor.tokenizer, SIDE), seed) for seed in (0, 1))
    weights = model.state_dict()
    for name, tensor in again.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=0)
    assert any(not torch.equal(tensor, weights[name]) for name, tensor in other.state_dict().items())
    assert model.model.language_model.wte.weight.std().item() == pytest.approx(0.08, rel=0.05)


def test_a_side_must_be_whole_tokens(tmp_path, run, capsys):
    with pytest.raises(SystemExit):
        small_model.main([str(tmp_path / "x"), "--dataset_name", str(run), "--side", "100"])
    assert "--side must be a multiple of 16, got 100" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_tower_learns_which_tokens_have_artifacts(base):
    model, processor = load(base)
    detector = detector_of(model, processor, 0)
    curve = train(detector, noisy_pairs(64), TowerTraining(steps=40, crop=SIDE))
    assert curve[-1][1] < 0.5 * curve[0][1]
    judged = noisy_pairs(16, seed=1)
    logits = token_logits(detector, judged.images.reshape(-1, SIDE, SIDE, 3))
    clean, flawed = logits[0::2], logits[1::2]
    cells = torch.from_numpy(judged.masks[:, ::STRIDE, ::STRIDE])
    assert (flawed.flatten(1).argmax(1) == cells.flatten(1).int().argmax(1)).float().mean() > 0.9
    assert (image_scores(flawed) > image_scores(clean)).float().mean() > 0.9


@pytest.mark.parametrize("what", ["masks", "targets"])
def test_what_is_hidden_leaves_nothing_of_artifacts_that_end_with_it(what):
    """Hidden as in the shortcut check of `tests/benchmarks/learning.py`."""
    clean, flawed = np.moveaxis(hide(noisy_pairs(8), what, 0).images, 1, 0)
    assert np.array_equal(clean, flawed)


def test_masks_are_hidden_and_not_target_patches():
    pairs = noisy_pairs(4)
    narrow = PairArrays(pairs.images, pairs.masks & (np.arange(SIDE) % 2 == 0), pairs.targets)
    assert np.array_equal((hide(narrow, "masks", 0).images == 128).all((1, 4)), narrow.masks)


def test_seams_on_the_grid_of_tokens_tell_images_apart_and_objects_do_not():
    rng = np.random.default_rng(0)
    clean = np.clip(rng.normal(128, 6, (12, 160, 160, 3)), 0, 255)
    blocks = np.kron(rng.normal(0, 25, (12, 10, 10)), np.ones((16, 16)))[..., None]
    on_grid, off_grid = (
        np.clip(clean + (np.roll(blocks, shift, (1, 2)) * (np.arange(160) < 90)[:, None]), 0, 255) for shift in (0, 5)
    )
    steep, even = (
        seam_auc(np.stack([clean, flawed], 1).astype(np.uint8), 16, resamples=50) for flawed in (on_grid, off_grid)
    )
    assert steep[0] > 0.95 and steep[1][0] > 0.9 and even[0] < 0.7


def test_what_is_around_a_target_is_hidden_with_it():
    pairs = noisy_pairs(4)
    hidden = (hide(pairs, "targets", 3).images == 128).all((1, 4))
    for one, target in zip(hidden, pairs.targets, strict=True):
        rows, columns = np.nonzero(target)
        expected = np.zeros_like(target)
        expected[max(0, rows.min() - 3) : rows.max() + 4, max(0, columns.min() - 3) : columns.max() + 4] = True
        assert (one == expected).all()


def test_crops_are_about_the_target_and_inside_the_image():
    pairs = noisy_pairs(16)
    crops = centred_crops(pairs, 32)
    assert crops.images.shape == (16, 2, 32, 32, 3)
    assert (crops.targets.sum((1, 2)) == STRIDE**2).all()


def test_pairs_are_read_as_they_were_written(run):
    pairs = load_pairs(run)
    assert pairs.images.shape == (3, 2, HEIGHT, WIDTH, 3)
    first = make_pair(0)
    assert np.array_equal(pairs.images[0], np.stack([np.asarray(first.clean), np.asarray(first.flawed)]))
    assert np.array_equal(pairs.masks[0], np.any([artifact.mask for artifact in first.artifacts], axis=0))
    assert pairs.targets.any((1, 2)).all()
    assert len(load_pairs(run, 2)) == 2
    with pytest.raises(UserError, match="--num_pairs must be at most the 3 pairs there are, got 4"):
        load_pairs(run, 4)


def test_pairs_of_several_sizes_are_refused(tmp_path):
    one, other = make_pair(0), make_pair(1)
    larger = replace(other, clean=other.clean.resize((2 * WIDTH, 2 * HEIGHT)))
    with pytest.raises(UserError, match="--dataset_name must hold images of one size"):
        load_pairs(write_run(tmp_path / "run", [one, larger]))


def test_the_command_trains_the_tower_and_nothing_else(base, run, tmp_path):
    tower.main([str(base), "--dataset_name", str(run), "--output_dir", str(tmp_path / "tower"), "--steps", "2"])
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "tower"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("vision_tower." in name for name in changed)
    record = json.loads((tmp_path / "tower" / "tower.json").read_text())
    assert record["settings"]["steps"] == 2
    assert record["data"] == {"source": "run", "num_pairs": None}
    assert {"torch", "transformers"} <= record["versions"].keys()
    load(tmp_path / "tower")


def test_a_folder_that_holds_something_is_refused_before_anything_is_made(base, run, tmp_path):
    with pytest.raises(UserError, match="OUT must be a new or empty folder, got '.*base'; choose another"):
        small_model.main([str(base), "--dataset_name", "no/such/pairs"])
    with pytest.raises(UserError, match="--output_dir must be a new or empty folder"):
        tower.main(["no/such/model", "--dataset_name", str(run), "--output_dir", str(base)])


def test_a_tower_needs_a_small_model(run, tmp_path):
    arguments = ["--dataset_name", str(run), "--output_dir", str(tmp_path / "tower")]
    with pytest.raises(UserError, match="MODEL must be the folder .*'runs/none' .* `python -m training.vlm.small"):
        tower.main(["runs/none", *arguments])
    assert not (tmp_path / "tower").exists()
