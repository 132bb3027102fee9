"""Paired means: against the definition, and that pairing and grouping do what they are for."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from evaluate_metrics.functional import paired
from evaluate_metrics.functional.intervals import Bootstrap, resamplings
from evaluate_metrics.functional.paired import paired_means


def width(interval: list[float]) -> float:
    return interval[1] - interval[0]


def test_the_example_runs():
    assert doctest.testmod(paired).failed == 0 and doctest.testmod(paired).attempted > 0


def test_means_and_intervals_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    first, second = rng.normal(2, 1, 40), rng.normal(2.5, 1, 40)
    result = paired_means(list(first), list(second))
    assert result["difference"] == pytest.approx(second.mean() - first.mean())
    assert result["relative"] == pytest.approx(second.mean() / first.mean() - 1)
    drawn = np.array([np.repeat(np.arange(40), counts) for counts in resamplings(40, Bootstrap())])
    differences = (second - first)[drawn].mean(axis=1)
    assert result["difference_interval"] == pytest.approx(list(np.quantile(differences, [0.025, 0.975])))
    assert (result["n"], result["groups"]) == (40, 40)


def test_pairs_take_out_what_is_hard_for_both():
    rng = np.random.default_rng(1)
    hardness = rng.normal(0, 10, 50)
    result = paired_means(list(hardness), list(hardness + 1 + rng.normal(0, 0.1, 50)))
    assert width(result["difference_interval"]) < width(result["first_interval"]) / 20
    assert result["difference_interval"][0] > 0.9


def test_images_of_a_prompt_are_drawn_together():
    rng = np.random.default_rng(2)
    values = np.repeat(rng.normal(0, 1, 10), 20)
    groups = np.repeat(np.arange(10), 20)
    alone, together = (paired_means(list(values), list(values), of) for of in (None, list(groups)))
    assert width(together["first_interval"]) > 3 * width(alone["first_interval"])
    assert together["groups"] == 10 and together["n"] == 200


def test_no_difference_among_few_pairs_proves_little():
    same = paired_means([0.0] * 5, [0.0] * 5, is_share=True)
    assert same["difference_interval"] == pytest.approx([-0.4345, 0.4345], abs=1e-4)  # Wilson for 0 of 5
    assert same["first_interval"] == pytest.approx([0, 0.4345], abs=1e-4)
    assert np.isnan(same["relative"])
    all_gone = paired_means([1.0] * 5, [0.0] * 5, is_share=True)
    assert all_gone["difference_interval"] == pytest.approx([-1, -0.5655], abs=1e-4)


def test_one_group_has_no_interval():
    result = paired_means([1.0, 2.0], [2.0, 3.0], ["a", "a"])
    assert result["difference"] == 1 and np.isnan(result["difference_interval"]).all()


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="must have one length, got 2, 1 and 2"):
        paired_means([1.0, 2.0], [1.0])
