"""The order of a training: shares by weight, passes without repetition, and what the seed fixes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.pixel.hard_cases import HardCases, category_means
from training.pixel.mixture import draw_order, interleave, plan


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=4), st.integers(1, 120))
def test_no_source_is_ahead_of_its_share(weights, length):
    sources = interleave(weights, length)
    shares = np.array(weights) / sum(weights)
    ahead = np.cumsum(np.eye(len(weights))[sources], axis=0) - np.outer(np.arange(1, length + 1), shares)
    assert ahead.max() < 1
    assert np.array_equal(interleave(weights, length + 5)[:length], sources)


def test_each_pass_has_each_unit_once_and_longer_trainings_begin_alike():
    order = draw_order(7, 20, seed=3)
    assert sorted(order[:7]) == sorted(order[7:14]) == list(range(7))
    assert not np.array_equal(order[:7], order[7:14])
    assert np.array_equal(draw_order(7, 9, seed=3), order[:9])
    assert not np.array_equal(draw_order(7, 7, seed=4), order[:7])


def test_a_plan_draws_each_source_by_its_weight():
    drawn = plan([5, 3], [3.0, 1.0], 40, seed=0)
    assert np.bincount(drawn[:, 0]).tolist() == [30, 10]
    assert np.bincount(drawn[drawn[:, 0] == 0, 1]).tolist() == [6] * 5
    assert np.array_equal(drawn, plan([5, 3], [3.0, 1.0], 40, seed=0))


def test_hard_categories_are_drawn_more_often():
    lines = [("street", 0.9), ("street", 0.8), ("cat", 0.2), ("tree", 0.25), ("sky", 0.15)]
    means = category_means(lines)
    assert means == {"cat": 0.2, "sky": 0.15, "street": pytest.approx(0.85), "tree": 0.25}
    cases = HardCases(means, factor=3.0)
    assert cases.hard == ("street",)
    categories = ["street", "cat", "tree", "sky"] * 5
    frequencies = cases.frequencies(categories)
    assert frequencies.mean() == pytest.approx(1) and frequencies[0] == pytest.approx(3 * frequencies[1])
    order = draw_order(20, 4000, seed=0, frequencies=frequencies)
    shares = np.bincount(order, minlength=20).reshape(5, 4).sum(axis=0) / 4000
    assert shares == pytest.approx([0.5, 1 / 6, 1 / 6, 1 / 6], abs=0.03)


def test_without_statistics_nothing_is_hard():
    assert HardCases({}).hard == () and HardCases({"cat": 0.5}).hard == ()
    assert HardCases({}).frequencies(["cat", "dog"]).tolist() == [1, 1]
