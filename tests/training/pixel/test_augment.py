"""Augmentation: masks stay on what they mark, and both halves of a pair are treated alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from training.pixel.augment import GREY, SHRINK, STANDARD, STRONG, Augmentation, Ranges
from training.pixel.losses import OUTSIDE


MOVES_ONLY = Ranges((0.5, 1.6), 0.0, (95, 95), (0.3, 0.3), (1.0, 1.0), 0.0)
HEIGHT, WIDTH = 48, 72


def marked_image():
    """Make a dark image whose labelled pixels, and no others, are white."""
    label = torch.zeros(HEIGHT, WIDTH)
    label[10:22, 40:61] = 1
    return (label * 255).to(torch.uint8).expand(3, -1, -1), label


@pytest.mark.parametrize("seed", range(8))
def test_masks_stay_on_what_they_mark(seed):
    image, label = Augmentation.draw(MOVES_ONLY, seed)(*marked_image())
    inside = label >= 0
    assert torch.equal(image[0][inside] == 255, label[inside] == 1)
    assert (image[:, ~inside] == GREY).all() and (label[~inside] == OUTSIDE).all()


def test_the_aspect_ratio_is_kept():
    for seed in range(8):
        image, label = Augmentation.draw(STRONG, seed)(*marked_image())
        assert image.shape[1:] == label.shape
        assert image.shape[2] / image.shape[1] == pytest.approx(WIDTH / HEIGHT, abs=0.03)


@pytest.mark.parametrize("ranges", [STANDARD, STRONG, SHRINK], ids=["standard", "strong", "shrink"])
def test_both_halves_are_treated_alike(ranges):
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (3, HEIGHT, WIDTH), dtype=np.uint8))
    for seed in range(4):
        change = Augmentation.draw(ranges, seed)
        first, second = (change(image, torch.zeros(HEIGHT, WIDTH))[0] for _ in range(2))
        assert torch.equal(first, second) and change == Augmentation.draw(ranges, seed)


def test_each_change_changes_what_it_should():
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(60, 200, (3, HEIGHT, WIDTH), dtype=np.uint8))
    label = torch.zeros(HEIGHT, WIDTH)
    assert torch.equal(Augmentation()(image, label)[0], image)
    assert torch.equal(Augmentation(flip=True)(image, label)[0], image.flip(2))
    for change in ({"blur": 1.0}, {"quality": 40}, {"resize": 0.5}, {"brightness": 1.2}, {"contrast": 0.7}):
        changed = Augmentation(**change)(image, label)[0]
        assert changed.shape == image.shape and changed.dtype == torch.uint8 and not torch.equal(changed, image)
    smoothed = Augmentation(blur=1.5)(image, label)[0].float()
    assert smoothed.diff(dim=2).abs().mean() < image.float().diff(dim=2).abs().mean() / 2


def test_an_image_is_shrunk_and_padded():
    change = Augmentation(window=2.0, place=(0.0, 1.0))
    image, label = change(torch.full((3, HEIGHT, WIDTH), 9, dtype=torch.uint8), torch.zeros(HEIGHT, WIDTH))
    assert image.shape == (3, 2 * HEIGHT, 2 * WIDTH)
    # The window's place is at the left and the bottom, so the image is too.
    assert (image[:, HEIGHT:, :WIDTH] == 9).all() and (label[HEIGHT:, :WIDTH] == 0).all()
    assert (label >= 0).sum() == HEIGHT * WIDTH


@pytest.mark.parametrize("flip", [False, True])
def test_a_window_shows_the_artifact(flip):
    label = torch.zeros(HEIGHT, WIDTH)
    label[-1, 3] = 1
    image = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)
    for seed in range(10):
        change = Augmentation(window=0.4, flip=flip).showing(label, seed)
        assert change(image, label)[1].sum() == 1
    far = Augmentation(window=0.4, place=(1.0, 0.0), flip=flip)
    assert far(image, label)[1].sum() == 0 or flip
    assert replace(far, window=1.0).showing(label, 0) == replace(far, window=1.0)
