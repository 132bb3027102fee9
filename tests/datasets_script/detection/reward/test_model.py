"""Reward models of every trunk and head: one score an image, with a gradient, and the same after saving."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datasets_script.detection.pixel.preprocessing import Preprocessing
from datasets_script.detection.reward.features import build_trunk, trunk_features
from datasets_script.detection.reward.heads import HEADS
from datasets_script.detection.reward.model import RewardModel
from datasets_script.detection.reward.preprocessing import RewardPreprocessing
from datasets_script.detection.reward.record import RewardRecord
from datasets_script.detection.reward.trunks import REWARD_TRUNKS, VISION_TRUNKS, trunk_config
from datasets_script.utils.errors import ArgumentError, UserError
from tests.helpers.tiny_detectors import square
from tests.helpers.tiny_rewards import TINY_REWARD_TRUNKS, tiny_reward, tiny_reward_network


def batch(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def test_every_trunk_has_a_tiny_form():
    assert set(TINY_REWARD_TRUNKS) == set(REWARD_TRUNKS)


@pytest.mark.parametrize("trunk", TINY_REWARD_TRUNKS)
@pytest.mark.parametrize("kind", HEADS)
def test_every_trunk_scores_with_a_gradient_and_reloads_equal(trunk, kind, tmp_path):
    model = tiny_reward(trunk, kind=kind, aggregation="soft_minimum")
    images = batch(2, 3, 48, 72).requires_grad_()
    scores = model.score(images)
    assert scores.shape == (2,) and scores.dtype == torch.float32 and scores[0] != scores[1]
    (gradient,) = torch.autograd.grad(scores[0], images)
    # All of its own image, and none of its neighbour's.
    assert (gradient[0].abs().sum(0) > 0).all() and not gradient[1].any()
    model.save_pretrained(tmp_path)
    again = RewardModel.from_pretrained(tmp_path, device="cpu")
    torch.testing.assert_close(again.score(images), scores, rtol=1e-4, atol=1e-5)
    weights = again.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in model.network.state_dict().items())
    assert again.record == model.record and again.identity()["head"] == model.identity()["head"]


def test_images_are_scored_as_one_by_one_whatever_their_sizes():
    model = tiny_reward("dinov3_vits16", kind="token")
    images: list[Any] = [square((8, 8, 24, 24)), square(None, 1, (40, 60)), square(None, 2), square(None, 3, (33, 90))]
    together = model(images)
    assert together == pytest.approx([model(image) for image in images], rel=1e-4, abs=1e-5)
    assert isinstance(model(images[0]), float) and len(set(together)) == 4


def test_paths_and_turned_images_are_opened_upright(tmp_path):
    model = tiny_reward("mit_b0")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8))
    turned = image.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    assert model(tmp_path / "turned.png") == pytest.approx(model(image), rel=1e-5)


@pytest.mark.parametrize("trunk", ["siglip_base", "siglip2_base", "clip_vit_b16", "dinov3_vits16"])
def test_tokens_lie_where_their_patches_do(trunk):
    """The token whose patch is changed changes most, in a network whose layers hardly mix tokens."""
    model = tiny_reward_network(trunk, kind="token").backbone
    pixels, inside = batch(1, 3, 32, 48), torch.ones(1, 32, 48, dtype=torch.bool)
    changed = pixels.clone()
    changed[:, :, 8:16, 24:32] += 5
    with torch.no_grad():
        before, after = (trunk_features(model, one, inside) for one in (pixels, changed))
    assert before.tokens.shape == (1, 16, 4, 6)
    assert (after.tokens - before.tokens).abs().sum(1)[0].argmax() == 1 * 6 + 3


def test_naflex_patches_are_those_of_the_image_processor():
    from transformers import Siglip2ImageProcessor

    from datasets_script.detection.reward.features import _naflex

    image = square(None, size=(48, 32))
    processor = Siglip2ImageProcessor(patch_size=8, max_num_patches=24, do_resize=False)
    theirs = processor(image, return_tensors="pt")
    pixels = (torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255 - 0.5) / 0.5
    ours = _naflex(pixels, 8)
    torch.testing.assert_close(ours["pixel_values"], theirs["pixel_values"])
    assert ours["spatial_shapes"].tolist() == theirs["spatial_shapes"].tolist() == [[4, 6]]


def test_padding_does_not_count():
    """Features of a convolutional trunk ignore what lies outside the image."""
    backbone = build_trunk(trunk_config("mit_b0", TINY_REWARD_TRUNKS["mit_b0"]))
    inside = torch.zeros(1, 64, 64, dtype=torch.bool)
    inside[:, :32] = True
    with torch.no_grad():
        features = trunk_features(backbone, batch(1, 3, 64, 64), inside)
    assert features.inside[0].float().mean() == 0.5 and features.inside[0, :4].all()
    # Mean and maximum of each map in turn.
    count = backbone.config.hidden_sizes[1]
    start = 2 * backbone.config.hidden_sizes[0]
    of_second = features.tokens[0, backbone.config.hidden_sizes[0] :][:count, :4].flatten(1)
    torch.testing.assert_close(features.pooled[0, start : start + count], of_second.mean(1))
    torch.testing.assert_close(features.pooled[0, start + count : start + 2 * count], of_second.amax(1))


def test_weights_are_stored_in_the_precision_asked_for(tmp_path):
    model = tiny_reward("efficientnet_lite0")
    model.save_pretrained(tmp_path, dtype=torch.bfloat16)
    again = RewardModel.from_pretrained(tmp_path, device="cpu")
    assert again.network.dtype == torch.float32
    image = square(None)
    assert again(image) == pytest.approx(model(image), abs=0.05)
    half = RewardModel.from_pretrained(tmp_path, device="cpu", dtype=torch.bfloat16)
    assert half.network.dtype == torch.bfloat16 and half(image) == pytest.approx(again(image), abs=0.1)


def test_a_record_that_is_not_whole_vouches_for_nothing(tmp_path):
    tiny_reward().save_pretrained(tmp_path)
    path = tmp_path / "reward_model.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "preprocessing": {**content["preprocessing"], "length": 0}}))
    with pytest.raises(UserError, match="holds a value that cannot be used: `length` must be at least 1"):
        RewardModel.from_pretrained(tmp_path, device="cpu")
    path.write_text("{}")
    with pytest.raises(UserError, match="must be of format 1"):
        RewardModel.from_pretrained(tmp_path, device="cpu")
    path.unlink()
    with pytest.raises(ArgumentError, match="of a reward model with safetensors, got .*it has no reward_model.json"):
        RewardModel.from_pretrained(tmp_path, device="cpu")


def test_mistakes_are_told():
    with pytest.raises(ArgumentError, match="`model` must be a folder or a repository"):
        RewardModel.from_pretrained("no/such/folder")
    with pytest.raises(ArgumentError, match="`trunk` must be among clip_vit_b16, "):
        trunk_config("vgg")
    with pytest.raises(ArgumentError, match="`multiple` must be a multiple of the trunk's patches of 8 px, got 20"):
        RewardModel(
            tiny_reward_network("siglip_base"), RewardRecord(RewardPreprocessing(Preprocessing(64, multiple=20)))
        )
    with pytest.raises(ArgumentError, match="`preprocessing` must have 3 tiles a side for this head, got 1"):
        RewardModel(tiny_reward_network(kind="tiled", tiles=3), RewardRecord())
    with pytest.raises(ValueError, match="must be floats of shape"):
        tiny_reward().score(torch.zeros(3, 8, 8))


def test_trunks_see_what_their_weights_expect():
    for name, trunk in VISION_TRUNKS.items():
        patch = trunk_config(name).patch_size
        assert trunk.preprocessing.multiple % patch == 0 and trunk.preprocessing.length % patch == 0
        assert trunk.license and trunk.weights.count("/") == 1
