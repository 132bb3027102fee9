"""Large images in tiles."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from datasets_script.detection.pixel.tiles import tiled


@pytest.fixture(scope="module")
def convolutions():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # A pixel depends on pixels up to 2 away, which is what tiles of 32 px allow.
        return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1)).double()


@pytest.mark.parametrize("size", [(80, 112), (33, 32), (20, 90), (64, 64)])
def test_tiles_give_what_the_whole_image_gives(convolutions, size):
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole = convolutions(images)[:, 0]
    torch.testing.assert_close(tiled(lambda part: convolutions(part)[:, 0], images, 32), whole, rtol=0, atol=1e-12)


@given(st.integers(1, 150), st.integers(1, 150), st.sampled_from([16, 31, 64]))
def test_every_pixel_is_seen_and_weights_add_up(height, width, tile):
    images = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(2))
    seen: list[tuple[int, int]] = []

    def brightness(part):
        seen.append((part.shape[2], part.shape[3]))
        return part.mean(dim=1)

    torch.testing.assert_close(tiled(brightness, images, tile), images.mean(dim=1))
    assert set(seen) == {(min(height, tile), min(width, tile))}


def test_gradients_are_those_of_the_whole_image(convolutions):
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(1, 3, 40, 48, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(1, 40, 48, generator=generator, dtype=torch.float64)

    def predict(part):
        return convolutions(part)[:, 0]

    found, expected = (
        torch.autograd.grad((maps * weights).sum(), images)[0]
        for maps in (tiled(predict, images, 32), predict(images))
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
