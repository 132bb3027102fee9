"""Confinement: exact equality outside the dilated target, and the artifact untouched inside."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffusers_artifact import PatchMapping
from diffusers_artifact.confinement import (
    confine_pixels,
    confine_to_visible,
    confine_tokens,
    dilated_targets,
    soft_outline,
)
from diffusers_artifact.visible_change import THRESHOLD, change_map, label_masks


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


def images_of(changes: np.ndarray, noise: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """A grey clean image, and the same with `changes`, of shape `(height, width)`, added; both as a batch of one."""
    clean = 0.2 * torch.randn(1, 3, *changes.shape, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    blur = noise * torch.randn(1, 1, *changes.shape, generator=torch.Generator().manual_seed(1))
    return clean, clean + 2 * torch.from_numpy(changes).float() + blur


def as_bytes(image: torch.Tensor) -> np.ndarray:
    return ((image[0] / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def at_the_target() -> np.ndarray:
    changes = np.zeros((GRID[0] * SIDE, GRID[1] * SIDE))
    changes[34:50, 50:66] = 0.2  # mostly in the target patch, whose upper left pixel is (32, 48)
    return changes


def test_only_what_is_seen_at_the_target_is_kept():
    changes = at_the_target()
    changes[70:90, 90:110] = 0.2  # seen, but elsewhere
    clean, flawed = images_of(changes, noise=0.01)
    kept = confine_to_visible(flawed, clean, [CENTRE])
    label = change_map(as_bytes(clean), as_bytes(kept)) > THRESHOLD
    assert label[34:50, 50:66].all() and not label[60:].any()
    differs = (kept != clean).any(1)[0].numpy()
    rows, columns = np.nonzero(differs)
    assert 26 <= rows.min() and rows.max() < 58 and 42 <= columns.min() and columns.max() < 74
    assert torch.equal(kept[..., 40:44, 56:60], flawed[..., 40:44, 56:60])


def test_an_artifact_that_nobody_sees_leaves_the_clean_image():
    for share in (0.2, 0.0):
        clean, flawed = images_of(share * at_the_target())
        assert torch.equal(confine_to_visible(flawed, clean, [CENTRE]), clean)


@pytest.mark.parametrize("seed", range(5))
def test_all_that_is_seen_is_connected_to_the_target_whatever_the_change(seed):
    generator = np.random.default_rng(seed)
    blobs = np.kron(generator.random((24, 32)), np.ones((4, 4)))
    clean, flawed = images_of(0.12 * blobs, noise=0.05)
    kept = confine_to_visible(flawed, clean, [CENTRE])
    [label] = label_masks(as_bytes(clean), as_bytes(kept), [CENTRE])
    assert np.array_equal(label, change_map(as_bytes(clean), as_bytes(kept)) > THRESHOLD)


def test_a_soft_outline_bounds_what_is_kept():
    clean, flawed = images_of(at_the_target())
    half = np.zeros((GRID[0] * SIDE, GRID[1] * SIDE), dtype=bool)
    half[:, :54] = True
    kept = confine_to_visible(flawed, clean, [CENTRE], [soft_outline(half, "duplication")])
    assert torch.equal(kept[..., 59:], clean[..., 59:])
    torch.testing.assert_close(kept[..., 38:44, 52:54], flawed[..., 38:44, 52:54])
    between = ((kept - clean) / (flawed - clean))[0, 0, 40, 54:58]
    assert (between.diff() < 0).all()


def test_steps_between_the_tokens_of_a_target_are_softened_and_no_others():
    clean = torch.zeros(1, 3, GRID[0] * SIDE, GRID[1] * SIDE)
    flawed = clean.clone()
    flawed[..., 32:48, 48:64] = 0.8  # the target patch
    flawed[..., 32:48, 16:24] = 0.8  # a step in the middle of a patch
    mapping = PatchMapping(targets=(17, 19), references=(0, 0), grid=GRID)
    kept = confine_to_visible(flawed, clean, [mapping])
    steps = kept[0, 0, 40].diff().abs()
    assert 0 < steps[47] < 0.3 and (steps[44:52] > 0).all()
    assert steps[23] == flawed[0, 0, 40].diff().abs()[23]


@pytest.mark.parametrize(("kind", "margin", "reach"), [("duplication", 1, 4), ("omission", 4, 12)])
def test_removed_parts_are_covered_wider_than_copies(kind, margin, reach):
    mask = np.zeros((64, 64), dtype=bool)
    mask[:, :32] = True
    weights = soft_outline(mask, kind)[32]
    assert (weights[: 32 + margin] == 1).all() and not weights[32 + reach :].any()
    assert (np.diff(weights[31 + margin : 32 + reach]) < 0).all()


def test_numbers_that_overflowed_are_not_hidden():
    clean, flawed = images_of(at_the_target())
    flawed[..., 90, 120] = torch.nan
    assert confine_to_visible(flawed, clean, [CENTRE]).isnan().any()
