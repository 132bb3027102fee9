"""Tests of image-level detection against scikit-learn and worked cases, and of intervals against theory."""

import doctest

import evaluate
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from evaluate_metrics import METRICS, metric_path
from evaluate_metrics.functional import detection, intervals
from evaluate_metrics.functional.detection import artifact_detection
from evaluate_metrics.functional.intervals import Bootstrap, score_with_intervals
from evaluate_metrics.functional.miou import PROTOCOLS, score_pixel_counts


NO_INTERVALS = Bootstrap(n_resamples=0)


@pytest.mark.parametrize("module", [detection, intervals])
def test_examples_of_docstrings_run(module):
    assert doctest.testmod(module).failed == 0


@given(st.lists(st.tuples(st.sampled_from([0, 1, None]), st.sampled_from([0, 1])), min_size=1, max_size=30))
def test_scores_equal_scikit_learns(cases):
    answers, truth = zip(*cases, strict=True)
    result = artifact_detection(answers, truth, bootstrap=NO_INTERVALS)
    labels = [2 if answer is None else answer for answer in answers]
    assert result["accuracy"] == pytest.approx(accuracy_score(truth, labels))
    for name, score in (("positive_f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
        expected = score(truth, labels, labels=[1], average="macro", zero_division=0)
        assert result[name] == pytest.approx(expected)
    expected = f1_score(truth, labels, labels=[0, 1], average="macro", zero_division=0)
    assert result["macro_f1"] == pytest.approx(expected)
    assert result["parse_failure_rate"] == pytest.approx(labels.count(2) / len(labels))
    assert sum(sum(row.values()) for row in result["confusion"].values()) == len(truth)


@pytest.mark.parametrize("answer", [0, 1])
def test_a_constant_answer_on_a_balanced_set_scores_as_published(answer):
    """Untrained models score .501/.336 and .498/.357 on ArtiBench (ArtiAgent §8), close to a constant answer."""
    result = artifact_detection([answer] * 1000, [0, 1] * 500)
    assert (result["accuracy"], round(result["macro_f1"], 3)) == (0.5, 0.333)


def test_an_unparsable_answer_is_no_silent_no():
    silent = artifact_detection([0, 0, 1, 1], [0, 0, 1, 1])
    honest = artifact_detection([None, 0, 1, 1], [0, 0, 1, 1])
    assert silent["accuracy"] == 1.0 and honest["accuracy"] == 0.75
    assert honest["parse_failure_rate"] == 0.25
    assert honest["confusion"]["clean"] == {"no": 1, "yes": 0, "unparsable": 1}


def test_recall_by_type_counts_images_that_have_the_type():
    types = [["fusion"], ["fusion", "omission"], ["omission"], []]
    result = artifact_detection([1, 0, 1, 0], [1, 1, 1, 0], types)
    assert result["recall_by_type"] == {"fusion": 0.5, "omission": 0.5}
    assert set(result["recall_by_type_interval"]) == {"fusion", "omission"}
    assert not any(name.startswith("recall_of_") for name in result)


def test_intervals_are_seeded_and_as_wide_as_the_binomial_says():
    answers, truth = [1] * 600 + [0] * 400, [1] * 1000
    first, second = (artifact_detection(answers, truth) for _ in range(2))
    assert first == second
    low, high = first["accuracy_interval"]
    assert low < 0.6 < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.6 * 0.4 / 1000), rel=0.1)
    other = artifact_detection(answers, truth, bootstrap=Bootstrap(seed=1))
    assert other["accuracy_interval"] != first["accuracy_interval"]


def test_a_score_that_some_resamples_lack_keeps_an_interval():
    statistics = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    result = score_with_intervals(statistics, lambda sums: {"share": sums[:, 0] / sums[:, 1]})
    assert result == {"share": 1.0, "share_interval": [1.0, 1.0]}


def test_intervals_of_all_right_and_none_right_are_wilsons():
    """Wilson's interval for 50 of 50 is [.929, 1] and for 25 of 25 [.867, 1], as in published tables of it."""
    truth = [0, 1] * 25
    right, wrong = artifact_detection(truth, truth), artifact_detection([1 - label for label in truth], truth)
    assert right["accuracy"] == 1 and wrong["accuracy"] == 0
    assert right["accuracy_interval"] == pytest.approx([0.929, 1], abs=5e-4)
    assert wrong["accuracy_interval"] == pytest.approx([0, 0.071], abs=5e-4)
    assert right["parse_failure_rate_interval"] == pytest.approx([0, 0.071], abs=5e-4)
    for name in ("recall", "precision", "positive_f1", "macro_f1"):
        assert right[f"{name}_interval"] == pytest.approx([0.867, 1], abs=5e-4)
    assert artifact_detection(truth, truth, bootstrap=Bootstrap(confidence=0.5))["accuracy_interval"][0] > 0.98


def test_a_precision_without_any_yes_says_nothing_more():
    assert artifact_detection([0] * 9, [0, 0, 1] * 3)["precision_interval"] == [0, 0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_masks_that_are_all_right_or_all_wrong_have_an_interval_too(protocol):
    counts = {"right": [9, 0, 0, 91], "wrong": [0, 9, 9, 82]}
    low, high = score_pixel_counts(np.array([counts["right"]] * 50), protocol)["miou_interval"]
    assert high == 1 and low == pytest.approx(0.929, abs=5e-4)
    f1 = score_pixel_counts(np.array([counts["wrong"]] * 50), protocol)["f1_interval"]
    assert f1 == pytest.approx([0, 0.071], abs=5e-4)


def test_all_other_intervals_are_percentiles():
    half = artifact_detection([1, 1, 1, 0], [1, 1, 0, 0])
    assert half["accuracy_interval"] == [0.25, 1.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0], [0, 1]), "`predictions` must have the length of `references`, 2, got 1"),
        (([0, 2], [0, 1]), r"`predictions` must hold values among \(0, 1, None\), got 2"),
        (([0, 1], [0, None]), r"`references` must hold values among \(0, 1\), got None"),
        (([0], [1], [["a"], []]), "`types` must have the length of `references`, 1, got 2"),
        (([0], [1], ["fusion"]), "`types` must be a list of names for each image, got 'fusion'"),
        (([0], [1], [None]), "`types` must be a list of names for each image, got None"),
        (([], []), "at least one sample"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        artifact_detection(*arguments)


@pytest.mark.parametrize("settings", [{"n_resamples": -1}, {"confidence": 1.0}])
def test_bad_bootstrap_settings_are_named(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Bootstrap(**settings)


def test_the_module_of_evaluate_adds_batches_and_combines():
    metric = evaluate.load(metric_path("artifact_detection"))
    metric.add_batch(predictions=[0, None], references=[0, 1])
    metric.add(prediction=1, reference=1)
    result = metric.compute(types=[[], ["fusion"], ["fusion"]], n_resamples=10)
    assert result["accuracy"] == pytest.approx(2 / 3)
    assert result["recall_by_type"] == {"fusion": 0.5}
    both = evaluate.combine({"ours": metric, "again": evaluate.load(metric_path("artifact_detection"))})
    combined = both.compute(predictions=[0, 1], references=[0, 0])
    assert combined["ours_accuracy"] == combined["again_accuracy"] == 0.5


def test_the_module_refuses_confidences_as_answers():
    metric = evaluate.load(metric_path("artifact_detection"))
    with pytest.raises(ValueError, match=r"`predictions` must hold values among \(0, 1, None\), got 0.7"):
        metric.compute(predictions=[0.7, 1], references=[0, 1])


def test_an_unknown_metric_is_named_with_those_there_are():
    assert "artifact_detection" in METRICS
    with pytest.raises(ValueError, match="artifact_detection.*got 'miuo'"):
        metric_path("miuo")
