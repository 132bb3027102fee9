"""How one score is made of several, and the views that tiles give."""

from __future__ import annotations

import math

import pytest
import torch

from datasets_script.detection.pixel.preprocessing import Preprocessing
from datasets_script.detection.reward.heads import AGGREGATIONS, HeadSettings, aggregate
from datasets_script.detection.reward.preprocessing import RewardPreprocessing
from datasets_script.utils.errors import ArgumentError


SCORES = torch.tensor([[3.0, 1.0, 2.0, -9.0], [0.0, 4.0, 2.0, 6.0]])
COUNTS = torch.tensor([[True, True, True, False], [True, True, True, True]])


def made(**settings: object) -> list[float]:
    return aggregate(SCORES, COUNTS, HeadSettings(kind="token", **settings)).tolist()  # type: ignore[arg-type]


def test_aggregations_equal_their_formulas():
    assert made(aggregation="minimum") == [1.0, 0.0]
    # ceil(.5 · 3) = 2 of three, ceil(.5 · 4) = 2 of four.
    assert made(aggregation="worst_mean", worst_share=0.5) == [1.5, 1.0]
    assert made(aggregation="worst_mean", worst_share=0.01) == [1.0, 0.0]
    soft = [
        -0.5 * math.log(sum(math.exp(-s / 0.5) for s in scores) / len(scores)) for scores in ([3, 1, 2], [0, 4, 2, 6])
    ]
    assert made(aggregation="soft_minimum", temperature=0.5) == pytest.approx(soft, abs=1e-5)
    assert made(aggregation="soft_minimum", temperature=1e-3) == pytest.approx([1.0, 0.0], abs=2e-3)
    assert made(aggregation="soft_minimum", temperature=1e4) == pytest.approx([2.0, 3.0], abs=1e-2)


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_what_does_not_count_has_no_gradient(name):
    scores = SCORES.clone().requires_grad_()
    aggregate(scores, COUNTS, HeadSettings(aggregation=name, worst_share=0.5)).sum().backward()
    assert scores.grad is not None and scores.grad[0, 3] == 0
    # Each score of an image shares one unit of gradient.
    torch.testing.assert_close(scores.grad.sum(1), torch.ones(2))


def test_tiles_are_views_at_the_size_of_the_whole():
    images = torch.rand(2, 3, 50, 90, generator=torch.Generator().manual_seed(0))
    made = RewardPreprocessing(Preprocessing(64, "long", 32), tiles=2)(images)
    assert made.pixel_values.shape == (2, 5, 3, 64, 64) and made.inside.shape == (2, 5, 64, 64)
    assert made.inside[:, 0, :36].all() and not made.inside[:, 0, 36:].any()
    alone = RewardPreprocessing(Preprocessing(64, "long", 32))(images[:, :, 25:, :45])
    torch.testing.assert_close(made.pixel_values[:, 3], alone.pixel_values[:, 0])


@pytest.mark.parametrize("shape", [(7, 7), (31, 64), (5, 9)])
def test_tiles_of_odd_sizes_show_every_pixel_once(shape):
    images = torch.zeros(1, 3, *shape, requires_grad=True)
    preprocessing = RewardPreprocessing(Preprocessing(1), tiles=3)
    views = list(preprocessing._views(images))
    assert len(views) == 10 and views[0].shape == images.shape
    total = torch.stack([view.sum() for view in views[1:]]).sum()
    (shown,) = torch.autograd.grad(total, images)
    assert torch.equal(shown, torch.ones_like(shown))


def test_records_of_preprocessing_are_read_back():
    preprocessing = RewardPreprocessing(Preprocessing(96, "short", 16), tiles=4)
    assert RewardPreprocessing.from_dict(preprocessing.to_dict()) == preprocessing
    with pytest.raises(ArgumentError, match="must have the field tiles"):
        RewardPreprocessing.from_dict(Preprocessing().to_dict())
    with pytest.raises(ValueError, match="must have at least 4 pixels a side"):
        preprocessing(torch.zeros(1, 3, 3, 8))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "mean"}, "`head` must be among pooled, token, tiled, got 'mean'"),
        ({"aggregation": "max"}, "`aggregation` must be among minimum, soft_minimum, worst_mean, got 'max'"),
        ({"temperature": 0.0}, "`temperature` must be above 0, got 0.0"),
        ({"worst_share": 0.0}, "`worst_share` must be above 0 and at most 1, got 0.0"),
        ({"tiles": 1}, "`tiles` must be at least 2, got 1"),
        ({"hidden_size": 0}, "`hidden_size` must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_told(settings, message):
    with pytest.raises(ArgumentError, match=message):
        HeadSettings(**settings)
