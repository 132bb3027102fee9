"""Regions in the cells of a grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluate_metrics.functional.grid import cell_counts, grid_cells, grid_iou
from evaluate_metrics.functional.intervals import Bootstrap


QUICK = Bootstrap(n_resamples=20)
SIZE = (64, 32)


@settings(max_examples=12)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(32, 64), (17, 40), (5, 90)]), st.sampled_from([0.0, 0.25, 0.5]))
def test_cells_are_those_of_the_definition_in_loops(seed, shape, share):
    mask = np.random.default_rng(seed).random(shape) < 0.3
    found = grid_cells(mask, share)
    for row in range(16):
        for column in range(16):
            pixels = [
                mask[y, x]
                for y in range(shape[0])
                for x in range(shape[1])
                if (y + 0.5) * 16 // shape[0] == row and (x + 0.5) * 16 // shape[1] == column
            ]
            assert found[row, column] == (sum(pixels) > share * len(pixels))


def test_counts_are_of_cells_not_of_pixels():
    # Cells of 4 × 2 px: the prediction touches two of them, and covers half of the first and an eighth of the second.
    predicted, true = [(0, 0, 5, 1)], [(0, 0, 1, 2)]
    assert cell_counts(predicted, true, SIZE).tolist() == [1, 1, 0, 254]
    assert cell_counts(predicted, true, SIZE, cell_share=0.2).tolist() == [1, 0, 0, 255]
    assert cell_counts(predicted, true, SIZE, cell_share=0.3).tolist() == [0, 1, 0, 255]


def test_scores_are_means_over_images_with_artifacts():
    predictions = [[(0, 0, 8, 2)], [], [(0, 0, 4, 2)]]
    references = [[(0, 0, 4, 2)], [(0, 0, 4, 2)], []]
    result = grid_iou(predictions, references, [SIZE] * 3, bootstrap=QUICK)
    assert result["miou"] == pytest.approx((1 / 2 + 0) / 2) and result["f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert (result["protocol"], result["grid"], result["n"], result["n_scored"]) == ("viescore2", 16, 3, 2)


def test_a_heat_map_of_another_size_is_refused_or_resized():
    values = np.zeros((16, 32))
    values[0, :2] = 0.9
    with pytest.raises(ValueError, match="image 0: "):
        grid_iou([values], [[(0, 0, 4, 2)]], [SIZE], bootstrap=QUICK)
    result = grid_iou([values], [[(0, 0, 4, 2)]], [SIZE], resize="prediction", bootstrap=QUICK)
    assert result["miou"] == 1 and result["resize"] == "prediction"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cell_share": 1.0}, r"`cell_share` must lie in \[0, 1\), got 1.0"),
        ({"grid": 0}, "`grid` must be at least 1, got 0"),
        ({"resize": "both"}, "`resize` must be one of error, prediction, got 'both'"),
        ({"empty": "two"}, "`empty` must be one of"),
    ],
)
def test_settings_are_checked(values, message):
    with pytest.raises(ValueError, match=message):
        grid_iou([[]], [[(0, 0, 4, 2)]], [SIZE], bootstrap=QUICK, **values)


def test_as_many_predictions_as_references_are_needed():
    with pytest.raises(ValueError, match="`predictions` must have the length of `references`, 2, got 1"):
        grid_iou([[]], [[], []], [SIZE] * 2)
