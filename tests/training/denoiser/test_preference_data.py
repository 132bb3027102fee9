"""Pairs of runs as latents: held out by photo, masked by their artifacts, with their own noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from datasets_script.utils.errors import UserError
from training.denoiser.preference_data import LatentPairs, fingerprint, load_pairs
from training.denoiser.rollout import Denoiser, SamplingSettings

from ...helpers.made_pairs import HEIGHT, WIDTH, make_pair, write_run
from ...helpers.tiny_pipelines import tiny_flux


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[str]:
    """Two runs: six photos with two pairs each and with noise, and one of corruptions without."""
    folder = tmp_path_factory.mktemp("runs")
    pairs = [
        replace(make_pair(index, f"photo{index // 2}.png", with_noise=True), caption=f"photo {index // 2}")
        for index in range(12)
    ]
    hardly = make_pair(20, "other.png")
    for artifact in hardly.artifacts:
        artifact.scores["unchanged"] = 1.0
    some = make_pair(21, "another.png")
    some.artifacts[0].scores["unchanged"] = 1.0
    assert len(some.artifacts) == 1
    return [
        str(write_run(folder / "one", pairs)),
        str(write_run(folder / "two", [hardly, some, make_pair(22, "z.png")], 1)),
    ]


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return Denoiser(tiny_flux(), SamplingSettings(2, 3.5, 32, 48, max_sequence_length=8))


def test_photos_are_held_out_whole_and_what_did_not_change_is_left_out(runs):
    train, test = load_pairs(runs, test_share=0.4, seed=1)
    both = {name: {*part.column("pair_id")} for name, part in (("train", train), ("test", test))}
    assert len(train) + len(test) == 13 and not both["train"] & both["test"]
    assert not {*train.column("source_id")} & {*test.column("source_id")}
    assert not {"photo20.png:0", "photo21.png:0"} & (both["train"] | both["test"])
    assert train.record()["pairs"] == len(train) and train.record()["models"] == ["embedded"]
    assert fingerprint(train) == fingerprint(test)
    few = load_pairs(runs, test_share=0.4, seed=1, test_limit=2)[1]
    assert len(few) == 2 and {*few.column("pair_id")} <= both["test"]
    assert few.column("pair_id") == load_pairs(runs, 0.4, 1, 2)[1].column("pair_id")


def test_a_pair_becomes_latents_with_its_prompt_mask_and_noise(runs, denoiser):
    train, _ = load_pairs(runs[:1], test_share=0.4, seed=1)
    captions = train.column("caption")
    prompts = [*dict.fromkeys(captions)]
    conditions = denoiser.encode_prompts(prompts)
    latent = LatentPairs(train, denoiser, conditions, [prompts.index(one) for one in captions], with_noise=True)
    for index in (0, len(train) - 1):
        pair, (found, of_pair) = train[index], latent[index]
        assert found.latents.shape == (2, 16, HEIGHT // 8, WIDTH // 8)
        images = torch.stack([torch.from_numpy(np.array(one)) for one in (pair.clean, pair.flawed)])
        expected = denoiser.encode_images(images.permute(0, 3, 1, 2).float() / 255)
        torch.testing.assert_close(found.latents, expected, rtol=1e-3, atol=1e-4)
        assert found.noise is not None and pair.clean_noise is not None and pair.flawed_noise is not None
        np.testing.assert_array_equal(found.noise, np.stack([pair.clean_noise, pair.flawed_noise]).astype("f4"))
        union = np.logical_or.reduce([artifact.mask for artifact in pair.artifacts])
        expected = union.reshape(HEIGHT // 8, 8, WIDTH // 8, 8).any((1, 3))
        np.testing.assert_array_equal(found.mask.numpy(), expected)
        row = prompts.index(pair.caption)
        assert torch.equal(of_pair.positive.prompt_embeds, conditions.positive.prompt_embeds[row : row + 1])
        np.testing.assert_array_equal(np.asarray(Image.open(train.image_path(index, "clean"))), pair.clean)


def test_mistakes_are_told(runs, denoiser):
    with pytest.raises(UserError, match="--pairs must hold pairs to hold out, got 12 of 6 photo"):
        load_pairs(runs[:1], test_share=1e-9, seed=0)
    part, index = next(
        (part, part.column("source_id").index("z.png"))
        for part in load_pairs(runs, test_share=0.4, seed=1)
        if "z.png" in part.column("source_id")
    )
    conditions, rows = denoiser.encode_prompts(["a cat"]), [0] * len(part)
    with pytest.raises(UserError, match="--noise must be random for pairs that were made without"):
        LatentPairs(part, denoiser, conditions, rows, with_noise=True)[index]
    assert LatentPairs(part, denoiser, conditions, rows, with_noise=False)[index][0].noise is None
