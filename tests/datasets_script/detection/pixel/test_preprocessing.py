"""What a network sees of an image, and the way back."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datasets_script.detection.pixel.preprocessing import Geometry, Preprocessing
from datasets_script.utils.errors import ArgumentError


SMALL = Preprocessing(length=32, multiple=8)


@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([8, 32]), st.sampled_from(["long", "short"]))
def test_nothing_is_cropped_and_the_aspect_is_kept(height, width, multiple, side):
    geometry = Preprocessing(length=32, multiple=multiple, side=side).geometry((height, width))
    chosen, other = (max, min) if side == "long" else (min, max)
    assert chosen(geometry.content) == 32
    assert abs(other(geometry.content) - 32 * other(height, width) / chosen(height, width)) <= 1
    for padded, content in zip(geometry.input, geometry.content, strict=True):
        assert padded % multiple == 0 and content <= padded < content + multiple


def test_the_padding_is_the_mean_and_lies_outside():
    pixel_values, geometry = SMALL(torch.rand(2, 3, 12, 20))
    assert geometry == Geometry((12, 20), (19, 32), (24, 32)) and pixel_values.shape == (2, 3, 24, 32)
    inside = geometry.inside()
    assert inside.sum() == 19 * 32 and not pixel_values[:, :, ~inside].any() and pixel_values[:, :, inside].all()


def test_an_image_of_one_colour_is_normalized():
    image = torch.tensor(SMALL.mean).view(1, 3, 1, 1) + 2 * torch.tensor(SMALL.std).view(1, 3, 1, 1)
    pixel_values, _ = SMALL(image.expand(1, 3, 32, 32))
    torch.testing.assert_close(pixel_values, torch.full((1, 3, 32, 32), 2.0))


def test_squares_of_one_size_make_batches_of_any_images():
    squares = Preprocessing(length=32, multiple=32)
    assert {squares.geometry(shape).input for shape in ((7, 90), (90, 7), (32, 32), (20, 31))} == {(32, 32)}


def test_a_mask_lies_where_the_image_shows_it_and_comes_back():
    image, mask = torch.zeros(1, 3, 48, 80), torch.zeros(1, 48, 80)
    image[:, :, 12:30, 20:60], mask[:, 12:30, 20:60] = 1, 1
    pixel_values, geometry = SMALL(image)
    fitted = geometry.fit(mask)
    bright = pixel_values[:, 0] > (0.5 - SMALL.mean[0]) / SMALL.std[0]
    assert fitted.shape == bright.shape and torch.equal(fitted > 0.5, bright)
    restored = geometry.restore(fitted) > 0.5
    assert (restored & (mask > 0)).sum() / (restored | (mask > 0)).sum() > 0.9


def test_a_map_of_the_images_size_is_left_as_it_is():
    geometry, maps = SMALL.geometry((32, 32)), torch.rand(2, 32, 32)
    assert torch.equal(geometry.fit(maps), maps) and torch.equal(geometry.restore(maps), maps)


def test_gradients_are_those_of_finite_differences():
    image = torch.rand(1, 3, 6, 10, dtype=torch.float64, requires_grad=True)
    tiny = Preprocessing(length=16, multiple=8)
    assert torch.autograd.gradcheck(lambda values: tiny(values)[0], image)
    logits = torch.rand(1, 16, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(tiny.geometry((6, 10)).restore, logits)


def test_it_is_stored_whole():
    stored = Preprocessing(length=100, side="short", multiple=4, mean=(0.1, 0.2, 0.3), padding=-1.0)
    assert Preprocessing.from_dict(json.loads(json.dumps(stored.to_dict()))) == stored
    with pytest.raises(ArgumentError, match="must have the fields length, mean, .* got length, size"):
        Preprocessing.from_dict({"length": 1, "size": 2})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"length": 0}, "`length` must be at least 1, got 0"),
        ({"multiple": 0}, "`multiple` must be at least 1, got 0"),
        ({"side": "wide"}, "`side` must be among long, short, got 'wide'"),
        ({"std": (0.5, 0.0, 0.5)}, "`std` must be above 0 in each channel"),
        ({"mean": (0.5,)}, "`mean` must be three numbers"),
    ],
)
def test_mistakes_are_told(values, message):
    with pytest.raises(ArgumentError, match=message):
        Preprocessing(**values)


@pytest.mark.parametrize("images", [torch.rand(3, 8, 8), torch.rand(1, 1, 8, 8), torch.zeros(1, 3, 8, 8).byte()])
def test_images_are_checked(images):
    with pytest.raises(ValueError, match="`images` must be floats of shape"):
        SMALL(images)
    with pytest.raises(ValueError, match=r"`maps` must be of shape \(batch, 8, 8\), got \(1, 9, 8\)"):
        SMALL.geometry((8, 8)).fit(torch.rand(1, 9, 8))
