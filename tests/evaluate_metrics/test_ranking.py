"""The area under the ROC curve of image scores."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from evaluate_metrics.functional.intervals import Bootstrap
from evaluate_metrics.functional.ranking import image_ranking


QUICK = Bootstrap(n_resamples=50)


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.7, 1.0]), st.integers(0, 1)), min_size=2, max_size=30))
def test_it_is_scikit_learns(images):
    scores, labels = zip(*images, strict=True)
    found = image_ranking(scores, labels, Bootstrap(n_resamples=0))["auroc"]
    if len(set(labels)) == 2:
        assert found == pytest.approx(roc_auc_score(labels, scores))
    else:
        assert math.isnan(found)


def test_intervals_hold_the_value_and_a_perfect_ranking_is_not_certain():
    result = image_ranking([0.1, 0.4, 0.35, 0.8, 0.7, 0.2], [0, 0, 1, 1, 1, 0], QUICK)
    low, high = result["auroc_interval"]
    assert low <= result["auroc"] <= high and (result["n"], result["protocol"]) == (6, "image")
    perfect = image_ranking([0.1] * 50 + [0.9] * 50, [0] * 50 + [1] * 50, QUICK)
    assert perfect["auroc"] == 1 and perfect["auroc_interval"] == pytest.approx([0.929, 1], abs=5e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.1], [0, 1]), "`predictions` must have the length of `references`, 2, got 1"),
        (([0.1, 0.2], [0, 2]), r"`references` must hold values among \(0, 1\), got 2"),
        (([0.1, math.nan], [0, 1]), "`predictions` must be finite, got nan"),
    ],
)
def test_mistakes_are_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        image_ranking(*arguments)
