"""Visible change: smoothing as SciPy's, components that touch targets, and one owner for every pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from diffusers_artifact import PatchMapping
from diffusers_artifact.visible_change import (
    MIN_AREA,
    SMOOTHING,
    THRESHOLD,
    change_map,
    label_masks,
    owners,
    smooth,
    target_mask,
)


GRID, SIDE = (6, 8), 16
SHAPE = (GRID[0] * SIDE, GRID[1] * SIDE)


def target_at(*patches: tuple[int, int]) -> PatchMapping:
    return PatchMapping.from_pairs([(row * GRID[1] + column, 0) for row, column in patches], GRID, "omission")


def drawn(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize("sigma", [SMOOTHING, 8.0])
def test_smoothing_is_that_of_scipy(sigma):
    values = np.random.default_rng(0).random((70, 90), dtype=np.float32)
    np.testing.assert_allclose(smooth(values, sigma), ndimage.gaussian_filter(values, sigma), atol=1e-5)


def test_the_change_map_is_the_smoothed_mean_over_channels():
    clean, flawed = np.random.default_rng(0).integers(0, 256, (2, 40, 50, 3), dtype=np.uint8)
    difference = np.abs(clean / 255 - flawed / 255).mean(axis=2)
    np.testing.assert_allclose(change_map(clean, flawed), ndimage.gaussian_filter(difference, SMOOTHING), atol=1e-5)


@given(seed=st.integers(0, 1000), share=st.floats(0.2, 0.7))
def test_owned_pixels_are_the_components_that_touch_targets(seed, share):
    rng = np.random.default_rng(seed)
    visible = np.kron(rng.random((24, 32)) < share, np.ones((4, 4), dtype=bool))
    targets = [target_mask(target_at(*patches), SHAPE[0]) for patches in (((1, 1), (1, 2)), ((4, 6),))]
    owner = owners(visible, targets)
    components, _ = ndimage.label(visible, np.ones((3, 3)))
    touching = np.isin(components, np.setdiff1d(components[targets[0] | targets[1]], 0))
    assert np.array_equal(owner >= 0, touching)
    for index, own in enumerate(targets):
        assert (owner[own & visible] == index).all()


def test_where_two_artifacts_meet_the_nearer_has_the_pixel():
    bar = drawn((20, 20, 28, 108))
    owner = owners(bar, [drawn((16, 16, 32, 32)), drawn((16, 96, 32, 112))])  # up to column 31 and from column 96
    assert (owner[24, 20:63] == 0).all() and (owner[24, 65:108] == 1).all()
    assert set(owner[~bar].tolist()) == {-1}


def test_labels_are_disjoint_and_leave_out_what_touches_no_target():
    clean = np.full((*SHAPE, 3), 100, dtype=np.uint8)
    flawed = clean.copy()
    flawed[drawn((18, 18, 40, 40), (70, 100, 80, 115), (2, 2, 12, 12))] += 60
    first, second = label_masks(clean, flawed, [target_at((1, 1)), target_at((4, 6))])
    assert not (first & second).any()
    assert first[18:40, 18:40].all() and second[70:80, 100:115].all()
    assert not (first | second)[:14, :14].any()
    assert np.array_equal((first | second)[14:], (change_map(clean, flawed) > THRESHOLD)[14:])


def test_a_change_of_a_few_pixels_is_no_label():
    clean = np.zeros((*SHAPE, 3), dtype=np.uint8)
    flawed = clean.copy()
    flawed[20:22, 20:22] = 120
    assert 0 < (change_map(clean, flawed) > THRESHOLD).sum() < MIN_AREA
    assert not label_masks(clean, flawed, [target_at((1, 1))])[0].any()
