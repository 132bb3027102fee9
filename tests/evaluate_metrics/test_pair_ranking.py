"""Ranking within pairs and across photos, against a count by hand and by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluate_metrics.functional.intervals import Bootstrap, resamplings
from evaluate_metrics.functional.pair_ranking import _Table, pair_ranking


NO_INTERVAL = Bootstrap(n_resamples=0)


def test_a_case_counted_by_hand():
    # Photo a has two pairs, b one. Within pairs: 3 > 1, 2 = 2, 0 < 1: (1 + ½ + 0) / 3.
    # Across: clean of a (3, 2) against artifact of b (1): 2 wins; clean of b (0) against artifacts of a (1, 2): none.
    scores = pair_ranking([3, 2, 0], [1, 2, 1], ["a", "a", "b"], NO_INTERVAL)
    assert scores["pair_accuracy"] == 0.5 and scores["cross_scene_auc"] == 0.5
    assert scores["n"] == 3 and scores["n_photos"] == 2


def brute(clean, artifact, photos):
    wins = [
        (c > a) + (c == a) / 2
        for c, p in zip(clean, photos, strict=True)
        for a, q in zip(artifact, photos, strict=True)
        if p != q
    ]
    return np.mean(wins) if wins else float("nan")


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.sampled_from("abcd")), min_size=1, max_size=12),
    st.integers(0, 2**31),
)
def test_equals_brute_force_on_the_data_and_on_resampled_photos(rows, seed):
    clean, artifact, photos = map(list, zip(*rows, strict=True))
    scores = pair_ranking(clean, artifact, photos, NO_INTERVAL)
    assert scores["cross_scene_auc"] == pytest.approx(brute(clean, artifact, photos), nan_ok=True)
    names, groups = np.unique(photos, return_inverse=True)
    table = _Table(np.array(clean, dtype=float), np.array(artifact, dtype=float), groups)
    (weights,) = resamplings(len(names), Bootstrap(n_resamples=1, seed=seed))
    repeated = [index for index, group in enumerate(groups) for _ in range(weights[group])]
    drawn = [[values[index] for index in repeated] for values in (clean, artifact, photos)]
    accuracy, area = table.scores(weights)
    assert accuracy == pytest.approx(np.mean([(c > a) + (c == a) / 2 for c, a, _ in zip(*drawn, strict=True)]))
    assert area == pytest.approx(brute(*drawn), nan_ok=True)


def test_intervals_are_of_photos():
    """Copies of the pairs of a photo tell nothing new; copies of photos do."""
    rng = np.random.default_rng(0)
    clean, artifact = rng.normal(0.5, 1, 40).tolist(), rng.normal(0, 1, 40).tolist()
    photos = [str(index) for index in range(40)]
    once, copied = pair_ranking(clean, artifact, photos), pair_ranking(clean * 5, artifact * 5, photos * 5)
    assert copied["pair_accuracy_interval"] == pytest.approx(once["pair_accuracy_interval"])
    assert copied["cross_scene_auc_interval"] == pytest.approx(once["cross_scene_auc_interval"])
    low, high = once["pair_accuracy_interval"]
    assert low < once["pair_accuracy"] < high


def test_all_right_has_an_honest_interval():
    scores = pair_ranking([2.0, 3.0], [0.0, 1.0], ["a", "b"])
    assert scores["pair_accuracy"] == 1 and scores["pair_accuracy_interval"][0] < 0.5
    assert np.isnan(pair_ranking([1.0], [0.0], ["a"])["cross_scene_auc"])


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="must hold finite scores"):
        pair_ranking([float("nan")], [0.0], ["a"])
    with pytest.raises(ValueError, match="artifact"):
        pair_ranking([1.0, 2.0], [0.0], ["a", "b"])
