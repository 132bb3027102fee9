"""Agreement between annotators, against scikit-learn and by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from evaluate_metrics.functional.agreement import box_agreement, box_iou, cohen_kappa


ANSWERS = st.sampled_from(["yes", "no", "unsure"])
BOXES = st.lists(
    st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(1, 20)] * 2).map(
        lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
    ),
    max_size=4,
)


@given(st.lists(st.tuples(ANSWERS, ANSWERS), min_size=1, max_size=20))
def test_kappa_is_that_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    ours = cohen_kappa(first, second)
    if len({*first, *second}) == 1:
        assert math.isnan(ours)
    else:
        assert ours == pytest.approx(cohen_kappa_score(first, second))


@given(st.lists(st.tuples(BOXES, BOXES), min_size=1, max_size=4))
def test_box_f1_does_not_depend_on_who_is_first(pairs: list[tuple[list, list]]) -> None:
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    one = box_agreement(first, second)
    if not any(map(len, [*first, *second])):
        assert math.isnan(one)
        return
    assert one == box_agreement(second, first) and 0 <= one <= 1
    assert box_agreement(first, first) == 1 or not any(map(len, first))


def test_a_box_is_matched_once() -> None:
    near = [(0, 0, 10, 10), (0, 0, 10, 9)]
    assert box_iou(near[0], near[1]) == 0.9 and box_iou((0, 0, 1, 1), (5, 5, 6, 6)) == 0
    assert box_agreement([near], [[(0, 0, 10, 10)]]) == pytest.approx(2 / 3)
    assert box_agreement([near], [[]]) == 0


def test_lengths_must_fit() -> None:
    with pytest.raises(ValueError, match="`second` must have the length of `first`, 1, got 0"):
        cohen_kappa(["yes"], [])
    with pytest.raises(ValueError, match="`second` must have the length of `first`, 0, got 1"):
        box_agreement([], [[]])
    assert math.isnan(cohen_kappa([], []))
