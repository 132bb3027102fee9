"""The loss of a reward model equals its formula, and pairs across photos are what they say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from datasets_script.detection.pixel.preprocessing import Preprocessing
from datasets_script.detection.reward.preprocessing import RewardPreprocessing
from tests.helpers.tiny_rewards import tiny_reward
from training.reward.data import PairCollator, PairItem, cross_pairs
from training.reward.loss import bradley_terry, squared_norm


PREPROCESSING = RewardPreprocessing(Preprocessing(32))


def items(scenes: list[int], place: int = 0, sizes: list[tuple[int, int]] | None = None) -> list[PairItem]:
    generator = torch.Generator().manual_seed(0)
    shapes = sizes or [(8, 12)] * len(scenes)
    made = [torch.randint(0, 256, (2, 3, *shape), generator=generator, dtype=torch.uint8) for shape in shapes]
    return [
        PairItem(place + index, scene, clean, artifact)
        for index, (scene, (clean, artifact)) in enumerate(zip(scenes, made, strict=True))
    ]


def test_loss_equals_its_formula():
    clean, artifact = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([1.0, 0.0, 0.5])
    cross = torch.tensor([[0, 1], [2, 0]])
    terms = [-math.log(1 / (1 + math.exp(-difference))) for difference in (2 - 1, -1 - 0, 0.5 - 0.5, 2 - 0, 0.5 - 1)]
    assert bradley_terry(clean, artifact, cross).item() == pytest.approx(sum(terms) / 5)
    assert bradley_terry(clean, artifact, cross[:0]).item() == pytest.approx(sum(terms[:3]) / 3)


def test_squared_norm_is_of_all_parameters():
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, -4.0]]))
        layer.bias.fill_(2.0)
    assert squared_norm(layer).item() == 9 + 16 + 4


# The examples are small: only a busy machine makes them slowly.
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(0, 3), min_size=1, max_size=9), st.integers(0, 20), st.integers(0, 1000))
def test_no_scene_is_paired_with_itself(scenes, wanted, place):
    cross = cross_pairs(items(scenes, place), wanted, seed=1)
    possible = sum(first != second for first in scenes for second in scenes)
    assert cross.shape == (min(wanted, possible), 2)
    assert all(scenes[clean] != scenes[artifact] for clean, artifact in cross.tolist())
    assert len({tuple(pair) for pair in cross.tolist()}) == len(cross)


def test_draws_depend_on_seed_and_place_alone():
    def drawn(seed: int, place: int) -> list[list[int]]:
        return cross_pairs(items(list(range(8)), place), 2, seed).tolist()

    assert drawn(0, 0) == drawn(0, 0)
    assert len({str(drawn(seed, place)) for seed in (0, 1) for place in (0, 8)}) == 4


def test_a_batch_of_sizes_scores_each_image_as_alone():
    """Images of another size in a batch change nothing, and scores come back in the order of the pairs."""
    model = tiny_reward("siglip2_base", length=32, kind="token")
    pairs = items([1, 2, 3, 4], sizes=[(8, 12), (16, 8), (8, 12), (9, 9)])
    batch: dict[str, Any] = PairCollator(model.record.preprocessing)(pairs)
    assert len(batch["inputs"]["pixel_values"]) == 3 and batch["labels"].tolist() == [1, 2, 3, 4]
    with torch.no_grad():
        scores = model.network(**batch["inputs"])[batch["places"]]
        images = [pair.clean for pair in pairs] + [pair.artifact for pair in pairs]
        alone = torch.cat([model.score(image[None].float() / 255) for image in images])
    torch.testing.assert_close(scores, alone, rtol=1e-4, atol=1e-5)
    assert len(np.unique(scores)) == 8
