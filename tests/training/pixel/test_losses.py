"""Losses on pixels, against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from datasets_script.utils.errors import ArgumentError
from training.pixel.losses import LOSSES, OUTSIDE, pixel_loss


LOGITS = torch.tensor([[[0.0, math.log(3.0)], [-math.log(3.0), 7.0]]])
LABELS = torch.tensor([[[0.0, 1.0], [0.6, OUTSIDE]]])
# Probabilities 1/2, 3/4 and 1/4 of the three pixels that count.
EXPECTED = {
    "mse": (0.5**2 + 0.25**2 + 0.35**2) / 3,
    "bce": -(math.log(0.5) + math.log(0.75) + 0.6 * math.log(0.25) + 0.4 * math.log(0.75)) / 3,
    # The soft label counts as the class "artifact".
    "ce": -(math.log(0.5) + math.log(0.75) + math.log(0.25)) / 3,
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_the_mean_over_pixels_that_count(name):
    assert pixel_loss(LOGITS, LABELS, name).item() == pytest.approx(EXPECTED[name], rel=1e-5)


def test_cross_entropy_is_that_of_two_classes():
    classes = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 2, (2, 3, 4), generator=torch.Generator().manual_seed(1))
    expected = torch.nn.functional.cross_entropy(classes, labels)
    assert pixel_loss(classes[:, 1] - classes[:, 0], labels.float(), "ce").item() == pytest.approx(expected.item())


@pytest.mark.parametrize("name", LOSSES)
def test_an_image_of_padding_has_neither_loss_nor_gradient(name):
    logits = torch.randn(1, 2, 2, requires_grad=True)
    loss = pixel_loss(logits, torch.full((1, 2, 2), OUTSIDE), name)
    loss.backward()
    assert loss.item() == 0 and logits.grad is not None and not logits.grad.any()


def test_an_unknown_loss_is_told():
    with pytest.raises(ArgumentError, match="`loss` must be among ce, bce, mse, got 'dice'"):
        pixel_loss(LOGITS, LABELS, "dice")
