"""Masks of polygons with their outlines."""

import numpy as np
import pytest

from evaluate_metrics.functional.outlines import outlined_mask


# A square whose lower half lies below the image, and which a point far right makes a pentagon.
POLYGON = (1.9, 1.9, 5.9, 1.9, 13.0, 5.0, 5.9, 99.0, 1.9, 99.0)


def test_polygons_are_cut_to_whole_numbers_and_filled_with_their_outline():
    mask = outlined_mask([(1.9, 1.9, 5.9, 1.9, 5.9, 99.0, 1.9, 1e12)], (8, 8))
    expected = np.zeros((8, 8), bool)
    expected[1:, 1:6] = True
    assert np.array_equal(mask, expected)


@pytest.mark.parametrize("moves_points", [True, False])
def test_a_polygon_is_cut_off_at_the_border_or_its_points_are_moved_there(moves_points):
    mask = outlined_mask([POLYGON], (8, 8), moves_points)
    # Moved, the tip lies at (7, 5) and the lower right corner at (5, 7); cut off, the right side is steep.
    assert mask[1:, 1:6].all() and not mask[0].any() and not mask[:, 0].any()
    assert mask[7, 7] == (not moves_points) and mask[5, 7]


def test_other_parts_are_drawn_as_regions():
    whole = outlined_mask([(0, 0, 2, 2), (4, 4, 6, 4, 6, 6, 4, 6)], (8, 8))
    assert whole[:2, :2].all() and whole[4:7, 4:7].all() and whole.sum() == 4 + 9
