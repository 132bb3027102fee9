"""Masks come back from an editor as they went in, whatever size the editor gives their layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from datasets_script.app.painted import painted_masks, painting, shown_size


SIZES = [(256, 256), (427, 640), (1024, 683)]
ORANGE, BLUE = "#d55e00", "#56b4e9"


def some_mask(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Make a mask with an area and single pixels at its corners and within."""
    mask = np.random.default_rng(seed).random(size[::-1]) < 0.01
    mask[10:40, 20:90] = mask[0, 0] = mask[-1, -1] = True
    return mask


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [1.0, 1.3, 2.5])
def test_a_mask_makes_the_round_trip_exactly(size: tuple[int, int], scale: float) -> None:
    mask = some_mask(size)
    shown = (round(size[0] * scale), round(size[1] * scale))
    layer = painting(mask, shown, ORANGE)
    assert layer.shape == (shown[1], shown[0], 4)
    (read,) = painted_masks({"background": None, "layers": [layer], "composite": None}, size)
    assert np.array_equal(read, mask)


def test_colours_paint_masks_of_their_own_and_the_upper_layer_counts() -> None:
    size = (64, 48)
    first, second = np.zeros(size[::-1], bool), np.zeros(size[::-1], bool)
    first[:, :40], second[:, 30:] = True, True
    layers = [painting(first, size, ORANGE), painting(second, size, BLUE)]
    orange, blue = painted_masks({"layers": layers}, size, (ORANGE, BLUE))
    assert np.array_equal(blue, second) and np.array_equal(orange, first & ~second)


def test_what_is_less_than_half_covered_is_left_out() -> None:
    layer = np.zeros((8, 8, 4), np.uint8)
    layer[2, 2], layer[3, 3] = (213, 94, 0, 127), (213, 94, 0, 128)
    (mask,) = painted_masks({"layers": [layer]}, (8, 8))
    assert np.argwhere(mask).tolist() == [[3, 3]]


def test_an_empty_editor_holds_an_empty_mask() -> None:
    empty: tuple[dict[str, Any] | None, ...] = (None, {"layers": []}, {"layers": None})
    for value in empty:
        (mask,) = painted_masks(value, (30, 20))
        assert mask.shape == (20, 30) and not mask.any()


def test_small_images_are_shown_enlarged_and_large_ones_as_they_are() -> None:
    assert shown_size((256, 128)) == (640, 320) and shown_size((1024, 683)) == (1024, 683)
