"""The generator of creatures in the stock pipeline and in ours, and its training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from safetensors.torch import load_file, save_file

from datasets_script.utils.errors import UserError
from datasets_script.utils.files import fingerprint
from tests.benchmarks.creatures import export, snapshot_rates, train
from tests.benchmarks.creatures.autoencoder import fit_encoder, quality, train_decoder
from tests.benchmarks.creatures.generator import (
    CALL,
    MAX_TOKENS,
    MIDDLE,
    TRAINED,
    clip_tokenizer,
    draw,
    encode_tokens,
    load_generator,
    new_generator,
    token_ids,
    trained_parameters,
    velocity,
)
from tests.benchmarks.creatures.measures import judge_all
from tests.benchmarks.creatures.parts import base
from tests.benchmarks.creatures.renderer import render_many
from tests.benchmarks.creatures.train import Training
from tests.benchmarks.creatures.words import all_words, is_held_out, vocabulary
from tests.benchmarks.creatures.world import World
from training.embedded.autoencoder import to_tensor


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.stack([one.image for one in render_many(40, 0, "test generator")])


@pytest.fixture(scope="module")
def folder(images: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pipe, out = new_generator(fit_encoder(images)), tmp_path_factory.mktemp("generator")
    for name in (*TRAINED, "vae"):
        getattr(pipe, name).to(torch.bfloat16)
    pipe.save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def pipe(folder: Path) -> FluxPipeline:
    return load_generator(folder)


PROMPTS = ["a green owl with two horns on a navy background", "a blue cat with no horns on a sand background"]


def test_it_is_small(pipe, folder):
    parameters = sum(p.numel() for name in (*TRAINED, "vae") for p in getattr(pipe, name).parameters())
    assert parameters <= 2.8e6
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 6e6


def test_the_generator_in_the_repository_draws_creatures_some_with_artifacts():
    """Of the first words, as `fix.py` draws them: what they ask for is shown, and not all pictures are clean."""
    assert sum(path.stat().st_size for path in MIDDLE.rglob("*") if path.is_file()) <= 6e6
    words = [words for words in all_words() if is_held_out(words)][:24]
    drawn = draw(load_generator(MIDDLE), [one.prompt for one in words], range(24), steps=8)
    verdicts = judge_all(np.stack([np.asarray(picture) for picture in drawn]), words)
    assert sum(verdict.meets_words for verdict in verdicts) >= 22
    assert 4 <= sum(verdict.has_artifact for verdict in verdicts) <= 20


def test_words_are_one_token_each(pipe):
    ids = token_ids(pipe, [*PROMPTS, ""])
    assert ids.t5.shape == ids.clip.shape == (3, MAX_TOKENS)
    assert (ids.t5 != pipe.tokenizer_2.pad_token_id).sum(1).tolist() == [11, 11, 1]
    assert pipe.tokenizer_2.unk_token_id not in ids.t5[:2]
    assert (ids.clip[:2] != pipe.tokenizer.eos_token_id).sum(1).tolist() == [11, 11]


def test_every_word_is_a_token_of_its_own():
    tokenizer = clip_tokenizer()
    pieces = [tokenizer.tokenize(word) for word in vocabulary()]
    assert pieces == [[f"{word}</w>"] for word in vocabulary()]
    # Weights belong to an order of tokens.
    assert tokenizer.get_vocab() == clip_tokenizer().get_vocab()


def test_training_sees_the_texts_of_the_stock_pipeline(pipe):
    ids = token_ids(pipe, PROMPTS)
    with torch.no_grad():
        sequence, pooled, _ = pipe.encode_prompt(PROMPTS, None, max_sequence_length=MAX_TOKENS)
        assert torch.equal(pipe.text_encoder_2(ids.t5)[0], sequence)
        assert torch.equal(pipe.text_encoder(ids.clip).pooler_output, pooled)


def test_noise_does_not_depend_on_the_batch(pipe):
    together = draw(pipe, PROMPTS, [1, 2], steps=2)
    alone = draw(pipe, PROMPTS[1:], [2], steps=2)
    difference = np.asarray(together[1]).astype(int) - np.asarray(alone[0])
    assert np.abs(difference).max() <= 1


def test_velocity_is_that_of_the_stock_pipeline(pipe):
    """One step of the stock pipeline moves the noise by the velocity that is trained."""
    noise = torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(0))
    moved = pipe(PROMPTS[0], **CALL, num_inference_steps=1, latents=noise, output_type="latent").images
    with torch.no_grad():
        expected = noise - velocity(pipe, noise, torch.ones(1), token_ids(pipe, PROMPTS[:1]))
    assert torch.allclose(moved, expected, atol=1e-5)


def test_our_pipeline_injects_with_it(folder):
    from diffusers_artifact import ArtifactInjectionPipeline, map_region

    ours = ArtifactInjectionPipeline.from_pretrained(folder, dtype=torch.float32)
    ours.set_progress_bar_config(disable=True)
    photo = render_many(1, 0, "test injection")[0]
    mapping = map_region(photo.picture, box=(16, 24, 32, 40), tool="add", patch_size=ours.patch_size)
    output = ours(photo.picture, mapping, prompt=photo.words.prompt, num_inference_steps=2)
    assert output.images[0].size == (64, 64)
    # Texts are as long as in training without being told.
    assert ours.encode_prompt(PROMPTS[0])[0].shape[1] == MAX_TOKENS


def test_the_decoder_learns(images):
    vae = fit_encoder(images)
    before, encoder = quality(vae, images[:8]), vae.encoder.weight.clone()
    train_decoder(vae, images, steps=15)
    assert quality(vae, images[:8]) > before
    assert torch.equal(vae.encoder.weight, encoder)


def training_on(images: np.ndarray) -> Training:
    vae = fit_encoder(images)
    pipe = new_generator(vae)
    tokens = encode_tokens(vae, to_tensor(images[:8]))
    return Training(pipe, tokens, token_ids(pipe, ["", PROMPTS[0]]), torch.ones(8, dtype=torch.long), 1e-3, 2, seed=0)


def test_an_interrupted_training_ends_with_the_same_weights(images, tmp_path):
    whole, first, second = (training_on(images) for _ in range(3))
    losses = [whole.advance(4) for _ in range(4)]
    for _ in range(2):
        first.advance(4)
    first.save(tmp_path / "state.safetensors")
    second.load(tmp_path / "state.safetensors")
    assert [second.advance(4) for _ in range(2)] == losses[2:]
    assert all(torch.equal(value, second.average[name]) for name, value in whole.average.items())


def test_a_generator_is_trained_on_from_another(folder, pipe, tmp_path):
    work = tmp_path / "work"
    command = ["--images", "12", "--batch-size", "2", "--steps", "1", "--learning-rate", "0", "--work"]
    train.main([*command, str(work), "--start-from", str(folder)])
    weights = load_file(work / "snapshots" / "000001.safetensors")
    assert all(torch.equal(weights[name], one) for name, one in trained_parameters(pipe).items())
    # Its record says of which weights, and its pictures come from the autoencoder of the other.
    record = json.loads((work / "training.json").read_text())
    assert record["settings"]["start_from"] == fingerprint(folder)
    export.main(["--work", str(work), "--step", "1", "--out", str(tmp_path / "generator")])
    on = load_generator(tmp_path / "generator")
    assert all(torch.equal(one, on.vae.state_dict()[name]) for name, one in pipe.vae.state_dict().items())
    with pytest.raises(UserError, match="--work must be"):
        train.main([*command, str(work)])


def test_a_generator_to_train_on_from_must_be_one(tmp_path):
    with pytest.raises(UserError, match="--start-from must be a folder"):
        train.main(["--images", "4", "--work", str(tmp_path / "work"), "--start-from", str(tmp_path)])


def test_the_base_part_continues_and_measures(folder, tmp_path, capsys):
    world = World(folder, tmp_path / "work", number=4, steps=2, seed=0, chunk=2)
    assert all(map(is_held_out, world.words))
    figures = base.run(world)
    assert figures["artifact_rate"] == 1.0  # the weights are random
    assert (tmp_path / "work" / "base.png").exists()
    capsys.readouterr()
    (tmp_path / "work" / "base" / "00002.npy").unlink()
    assert base.run(World(folder, tmp_path / "work", number=4, steps=2, seed=0, chunk=2)) == figures
    assert capsys.readouterr().out == "base: 4 of 4 pictures\n"


def test_a_folder_of_results_belongs_to_its_settings(folder, tmp_path):
    from tests.benchmarks.creatures.fix import begin

    begin(World(folder, tmp_path, 4, 2, 0))
    with pytest.raises(UserError, match="--work must be a folder of results with pictures = 5"):
        begin(World(folder, tmp_path, 5, 2, 0))


def test_artifact_rates_of_snapshots(images, tmp_path, capsys):
    vae = fit_encoder(images)
    vae.save_pretrained(tmp_path / "vae_trained")
    (tmp_path / "snapshots").mkdir()
    for step in (1, 2):
        weights = {name: one.detach().clone() for name, one in trained_parameters(new_generator(vae, step)).items()}
        save_file(weights, tmp_path / "snapshots" / f"{step:06d}.safetensors")
    command = [
        "--work",
        str(tmp_path),
        "--number",
        "2",
        "--picture-steps",
        "1",
        "--json",
        str(tmp_path / "rates.json"),
    ]
    snapshot_rates.main([*command, "--steps", "1"])
    first = capsys.readouterr().out
    assert "step 1: artifact rate 1.000 (0.342 to 1.000), words met in " in first and "of 2 pictures" in first
    (tmp_path / "snapshots" / "000001.safetensors").write_bytes(b"is not read again")
    snapshot_rates.main([*command, "--steps", "1", "2"])
    assert capsys.readouterr().out.startswith(first)
    with pytest.raises(UserError, match="--json must be a new file or one of pictures with .*'seed': 1"):
        snapshot_rates.main([*command, "--steps", "1", "--seed", "1"])
    with pytest.raises(UserError, match="--step must be that of a snapshot .*, got 3; there are 1, 2"):
        snapshot_rates.main([*command, "--steps", "3"])
