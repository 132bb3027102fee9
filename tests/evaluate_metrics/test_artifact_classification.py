"""Tests of `artifact_classification` against scikit-learn and the rows of SynArtifact's Table 2."""

from __future__ import annotations

import doctest

import evaluate
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, hamming_loss, jaccard_score, precision_recall_fscore_support

import evaluate_metrics.functional.classification as classification
from evaluate_metrics import metric_path
from evaluate_metrics.functional.classification import CLASSES, Accuracy, artifact_classification, find_class
from evaluate_metrics.functional.intervals import Bootstrap


NAMES = [known.name for known in CLASSES]
NO_INTERVALS = Bootstrap(n_resamples=0)

label_sets = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True)
samples = st.lists(st.tuples(st.none() | label_sets, label_sets), min_size=1, max_size=12)


def indicators(labels: list[list[str] | None]) -> np.ndarray:
    return np.array([[name in (of_sample or ()) for name in NAMES] for of_sample in labels], dtype=int)


@settings(deadline=None, max_examples=60)
@given(samples=samples, average=st.sampled_from(["samples", "micro", "macro"]))
def test_equals_scikit_learn(samples, average):
    predictions, references = (list(column) for column in zip(*samples, strict=True))
    answered, true = indicators(predictions), indicators(references)
    expected = precision_recall_fscore_support(true, answered, average=average, zero_division=0)[:3]
    accuracies: dict[Accuracy, float] = {
        "exact_match": accuracy_score(true, answered),
        "jaccard": jaccard_score(true, answered, average="samples"),
        "hamming": 1 - hamming_loss(true, answered),
    }
    for definition, accuracy in accuracies.items():
        result = artifact_classification(predictions, references, definition, average, NO_INTERVALS)
        assert [result[score] for score in ("precision", "recall", "f1")] == pytest.approx(expected)
        assert result["accuracy"] == pytest.approx(accuracy)
    assert result["parse_failure_rate"] == predictions.count(None) / len(predictions)
    by_class = precision_recall_fscore_support(true, answered, average=None, zero_division=0)
    for name, *row in zip(NAMES, *by_class, strict=True):
        scores = result["by_class"][name]
        assert [scores[score] for score in ("precision", "recall", "f1", "support")] == pytest.approx(row)


@pytest.mark.parametrize(
    ("name", "counts", "published"),
    [
        ("Distorted and deformed components", (41, 24, 51, 149), (71.70, 63.08, 44.57, 52.23)),
        ("No artifacts", (102, 81, 10, 72), (65.66, 55.74, 91.07, 69.15)),
        ("Distorted and deformed components", (61, 69, 31, 104), (62.26, 46.92, 66.30, 54.95)),
        ("No artifacts", (75, 60, 37, 93), (63.40, 55.56, 66.96, 60.73)),
        ("Distorted and deformed components", (28, 48, 64, 125), (57.74, 36.84, 30.43, 33.33)),
        ("No artifacts", (86, 97, 26, 56), (53.58, 46.99, 76.79, 58.31)),
    ],
)
def test_published_rows_of_a_class_have_whole_counts(name, counts, published):
    here, other = [name], ["Localized blur"]
    pairs = [(here, here), (here, other), (other, here), (other, other)]  # TP, FP, FN, TN
    predictions, references = zip(
        *(pair for pair, count in zip(pairs, counts, strict=True) for _ in range(count)), strict=True
    )
    result = artifact_classification(predictions, references, bootstrap=NO_INTERVALS)
    scores = result["by_class"][name]
    assert [round(100 * scores[score], 2) for score in ("accuracy", "precision", "recall", "f1")] == list(published)


def test_published_row_of_the_baseline_has_whole_counts():
    # The baseline answers one class each time; 105 times "No artifacts", 49 of them correctly.
    answered_rightly = [(["No artifacts"], ["No artifacts"])] * 49 + [(["Omission"], ["Omission"])] * 4
    one_of_several = [
        (["Omission"], ["Omission", *others])
        for others, count in (
            (["Distortion"], 7),
            (["Distortion", "Duplication"], 5),
            (["Distortion", "Duplication", "Illegible letters"], 2),
        )
        for _ in range(count)
    ]
    wrong = [(["No artifacts"], ["Distortion"])] * 56 + [(["Omission"], ["No artifacts"])] * 63
    wrong += [(["Omission"], ["Distortion"])] * 79
    predictions, references = zip(*answered_rightly, *one_of_several, *wrong, strict=True)
    result = artifact_classification(predictions, references, bootstrap=NO_INTERVALS)
    assert result["n"] == 265
    scores = [result, result["by_class"]["No artifacts"]]
    assert [[round(100 * row[name], 2) for name in ("accuracy", "precision", "recall", "f1")] for row in scores] == [
        [20.00, 25.28, 22.14, 23.01],
        [55.09, 46.67, 43.75, 45.16],
    ]


def test_classes_are_the_papers():
    assert [known.id for known in CLASSES] == list(range(1, 15))
    assert {known.group for known in CLASSES} == {
        "object-aware",
        "abnormal components",
        "attribute mis-binding",
        "lighting",
        "others",
        "no artifacts",
    }
    for known in CLASSES:
        for name in (known.name, *known.aliases):
            assert find_class(f"{known.id}. {name.upper()}.") is known


@pytest.mark.parametrize("text", ["", "3", "components", "no artifacts at all", "a strange hand"])
def test_other_words_name_no_class(text):
    assert find_class(text) is None


def test_no_class_says_no_artifacts_and_an_unparsable_answer_says_nothing():
    result = artifact_classification([[], None, None], [[], [], ["Distortion"]], bootstrap=NO_INTERVALS)
    assert result["accuracy"] == pytest.approx(1 / 3)
    assert result["by_class"]["No artifacts"]["recall"] == 0.5
    assert result["by_class"]["No artifacts"]["precision"] == 1.0
    assert result["parse_failure_rate"] == pytest.approx(2 / 3)


def test_intervals_hold_the_scores_and_depend_on_the_seed_only():
    generator = np.random.default_rng(0)
    references = [[NAMES[index]] for index in generator.integers(14, size=60)]
    predictions = [names if generator.random() < 0.6 else ["Distortion"] for names in references]
    first, again, other = (
        artifact_classification(predictions, references, bootstrap=Bootstrap(200, seed=seed)) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other
    for scores in (first, *first["by_class"].values()):
        for name in ("accuracy", "precision", "recall", "f1"):
            low, high = scores[f"{name}_interval"]
            assert low <= scores[name] <= high
    assert first["accuracy_interval"][0] < first["accuracy_interval"][1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((([],), ([], [])), "`predictions` must have the length of `references`, 2, got 1"),
        (([], []), "at least one sample"),
        (([["blurry"]], [[]]), "`predictions` must hold classes among 'Illegible letters', .*got 'blurry'"),
        (([[]], [["blurry"]]), "`references` must hold classes among .*got 'blurry'"),
        (([[]], [None]), "`references` must be lists of classes, got None"),
        (([[]], [[]], "subset"), "`accuracy` must be one of exact_match, jaccard, hamming, got 'subset'"),
        (([[]], [[]], "jaccard", "mean"), "`average` must be one of samples, micro, macro, got 'mean'"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        artifact_classification(*arguments)


def test_module_equals_the_function():
    metric = evaluate.load(metric_path("artifact_classification"))
    predictions, references = [["Distortion"], None, [], ["Localized blur"]], [["Distortion"], ["Omission"], [], []]
    expected = artifact_classification(predictions, references, "jaccard", "macro", Bootstrap(50, 0.9, 3))
    options = {"accuracy": "jaccard", "average": "macro", "n_resamples": 50, "confidence": 0.9, "seed": 3}
    assert metric.compute(predictions=predictions, references=references, **options) == expected
    for start in (0, 2):
        metric.add_batch(predictions=predictions[start : start + 2], references=references[start : start + 2])
    assert metric.compute(**options) == expected
    combined = evaluate.combine({"first": metric, "second": metric_path("artifact_classification")})
    result = combined.compute(predictions=predictions, references=references, n_resamples=0)
    assert result["first_f1"] == result["second_f1"]
    assert result["first_n"] == 4


def test_examples():
    folder = metric_path("artifact_classification")
    metric = evaluate.load(folder)
    example = doctest.DocTestParser().get_doctest(metric.inputs_description, {}, metric.name, None, None)
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0
    for results in (doctest.testmod(classification), doctest.testfile(f"{folder}/README.md", module_relative=False)):
        assert (results.failed, bool(results.attempted)) == (0, True)
