"""Confinement: exact equality outside the dilated target, and the artifact untouched inside."""

from __future__ import annotations

import pytest
import torch

from diffusers_artifact import PatchMapping
from diffusers_artifact.confinement import confine_pixels, confine_tokens, dilated_targets


GRID, SIDE = (6, 8), 16
CENTRE = PatchMapping(targets=(19,), references=(0,), grid=GRID)  # row 2, column 3


def test_dilation_adds_the_patches_that_touch():
    inside = dilated_targets([CENTRE, PatchMapping.empty(GRID)])
    expected = torch.zeros(GRID, dtype=torch.bool)
    expected[1:4, 2:5] = True
    assert torch.equal(inside[0], expected) and not inside[1].any()


def test_tokens_outside_are_the_reconstructions():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(4, 48, 3, generator=generator)
    inside = dilated_targets([CENTRE, CENTRE])
    confined = confine_tokens(tokens, torch.tensor([0, 1]), inside)
    mask = inside[0].flatten()
    assert torch.equal(confined[:2], tokens[:2])
    assert torch.equal(confined[2:, mask], tokens[2:, mask])
    assert torch.equal(confined[2:, ~mask], tokens[:2, ~mask])


@pytest.mark.parametrize("target", [(2, 3), (0, 0), (5, 7)])
def test_pixels_fade_from_the_target_to_one_patch_beyond(target):
    row, column = target
    mapping = PatchMapping(targets=(row * GRID[1] + column,), references=(9,), grid=GRID)
    shape = (1, 3, GRID[0] * SIDE, GRID[1] * SIDE)
    weight = confine_pixels(torch.ones(shape), torch.zeros(shape), [mapping], SIDE)[0, 0]
    rows, columns = torch.meshgrid(torch.arange(shape[2]), torch.arange(shape[3]), indexing="ij")
    below, right = rows - (row * SIDE + SIDE - 1), columns - (column * SIDE + SIDE - 1)
    above, left = row * SIDE - rows, column * SIDE - columns
    distance = torch.stack([above, below, left, right]).amax(0)  # from the target, negative or 0 inside
    torch.testing.assert_close(weight[distance <= 0], torch.ones_like(weight[distance <= 0]))
    assert not weight[distance > SIDE].any()
    beside = (distance > 0) & (distance <= SIDE)
    assert (weight[beside] > 0).all() and (weight[beside] < 1).all()
    middle = row * SIDE + SIDE // 2
    fading = (
        weight[middle, column * SIDE + SIDE :] if column < GRID[1] - 1 else weight[middle, : column * SIDE].flip(0)
    )
    assert (fading.diff() <= 1e-6).all()
