"""The scripts that make the embedded model, one after another, on a few crops and for seconds."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel
from PIL import Image

from datasets_script.utils.errors import UserError
from diffusers_artifact import ArtifactInjectionPipeline
from training.embedded import autoencoder, data, export, measure, transformer


SHORT = ["--minutes", "0.005", "--threads", "1"]


@pytest.fixture(scope="module", autouse=True)
def threads():
    """Keep the number of threads, which the scripts set for their process: here, all tests share it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "set_num_threads", lambda number: None)
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Make crops of two photos and one render, and train on them."""
    work, generator = tmp_path_factory.mktemp("embedded"), np.random.default_rng(0)
    (work / "photos" / "clic2025").mkdir(parents=True)
    (work / "renders").mkdir()
    for number in range(2):
        colors = generator.integers(0, 256, (8, 10, 3), dtype=np.uint8)
        Image.fromarray(colors).resize((500, 400)).save(work / "photos" / "clic2025" / f"{number}.jpg")
    Image.fromarray(generator.integers(0, 256, (16, 16, 4), dtype=np.uint8)).save(work / "renders" / "a.webp")
    crops = ["--crops", str(work / "crops.npy")]
    data.main(
        [*("--photos", str(work / "photos"), "--renders", str(work / "renders"))]
        + [*("--out", str(work / "crops.npy"), "--num-crops", "66")]
    )
    autoencoder.main([*crops, "--out", str(work / "vae"), "--batch-size", "2", *SHORT])
    transformer.main(
        [*crops, "--vae", str(work / "vae"), "--out", str(work / "transformer"), "--batch-size", "2", *SHORT]
    )
    return work


def test_crops_depend_on_the_seed_alone(work, tmp_path):
    again = tmp_path / "crops.npy"
    photos = ["--photos", str(work / "photos"), "--renders", str(work / "renders"), "--num-crops", "66"]
    data.main([*photos, "--out", str(again)])
    assert np.array_equal(np.load(again), np.load(work / "crops.npy"))
    assert np.load(again).shape == (66, 256, 256, 3)


def test_the_parts_make_a_pipeline(work, tmp_path):
    parts = ["--vae", str(work / "vae"), "--transformer", str(work / "transformer")]
    export.main([*parts, "--out", str(tmp_path / "model")])
    pipe = ArtifactInjectionPipeline.from_pretrained(tmp_path / "model")
    assert pipe.transformer.config.num_single_layers == 6
    for part in ("vae", "transformer"):
        record = json.loads((work / part / "training.json").read_text())
        assert record["steps"] >= 1 and record["settings"]["seed"] == "0"


def test_windows_keep_their_place_in_the_image():
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    tokens = torch.stack([rows, columns], dim=-1).reshape(1, 32 * 32, 2).half()
    torch.manual_seed(0)
    window, ids = transformer.draw_window(tokens, 3, 16)
    assert window.shape == (3, 256, 2) and window[0, 0].any()
    assert torch.equal(window[2], ids[:, 1:])


def test_training_starts_from_another_transformer(work):
    trained = FluxTransformer2DModel.from_pretrained(work / "transformer")
    model = FluxTransformer2DModel(**transformer.CONFIG | {"in_channels": 32})
    own = model.x_embedder.weight.clone()
    transformer.start_from(model, trained)
    assert torch.equal(model.x_embedder.weight, own)
    block, other = model.transformer_blocks[1].attn.to_q, trained.transformer_blocks[1].attn.to_q
    assert torch.equal(block.weight, other.weight)


def test_a_folder_of_other_settings_is_refused(work):
    crops = ["--crops", str(work / "crops.npy")]
    with pytest.raises(
        UserError, match="--out must be the folder of a run with seed = 1, got '.*vae' with seed = 0; choose"
    ):
        autoencoder.main([*crops, "--out", str(work / "vae"), "--batch-size", "2", *SHORT, "--seed", "1"])


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        (data, ["--photos", "none", "--renders", "none", "--out", "x"], "--photos must be a folder with clic2025/"),
        (autoencoder, ["--crops", "none", "--out", "x"], "--crops must be a .npy file of `python -m training.embedd"),
        (transformer, ["--crops", "none", "--vae", "none", "--out", "x"], "--crops must be a .npy file"),
        (export, ["--vae", "none", "--transformer", "none", "--out", "x"], "--vae must be a folder that its training"),
        (measure, ["--photos", "none"], "--photos must be a folder with clic2025/"),
    ],
)
def test_what_is_missing_is_told(script, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        script.main(arguments)
    assert not list(tmp_path.iterdir())
