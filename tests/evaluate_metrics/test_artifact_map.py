"""Tests of DiffDoctor's scores of artifact maps against loops over pixels, scikit-learn, torch and worked cases."""

import doctest
import io
import math

import evaluate
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from sklearn.metrics import mean_squared_error

from evaluate_metrics import metric_path
from evaluate_metrics.artifact_map import artifact_map as evaluate_module
from evaluate_metrics.functional import artifact_map as functional
from evaluate_metrics.functional.artifact_map import artifact_frequency, artifact_map
from evaluate_metrics.functional.intervals import Bootstrap


NO_INTERVALS = Bootstrap(n_resamples=0)
maps = arrays(np.float64, (3, 4), elements=st.one_of(st.just(0.0), st.just(1.0), st.floats(0, 1)))


def divergence_by_loops(true, predicted, epsilon):
    total = 0.0
    for p, q in zip(true.ravel().tolist(), predicted.ravel().tolist(), strict=True):
        if p > 0:
            total += p * math.log(p / min(max(q, epsilon), 1 - epsilon))
    return total / true.size


def test_examples_of_docstrings_run():
    result = doctest.testmod(functional)
    assert result.attempted and not result.failed


def test_examples_of_the_module_run():
    parsed = doctest.DocTestParser().get_doctest(evaluate_module._KWARGS_DESCRIPTION, {}, "artifact_map", None, 0)
    result = doctest.DocTestRunner().run(parsed)
    assert result.attempted and not result.failed


@given(st.lists(st.tuples(maps, maps), min_size=1, max_size=3), st.sampled_from([1e-6, 1e-3]))
def test_scores_equal_their_formulas_in_loops(pairs, epsilon):
    predictions, references = zip(*pairs, strict=True)
    result = artifact_map(predictions, references, epsilon=epsilon, bootstrap=NO_INTERVALS)
    expected = [mean_squared_error(true, predicted) for predicted, true in pairs]
    assert result["mse"] == pytest.approx(np.mean(expected), abs=1e-12)
    expected = [divergence_by_loops(true, predicted, epsilon) for predicted, true in pairs]
    assert result["kl"] == pytest.approx(np.mean(expected), rel=1e-6, abs=1e-9)
    expected = [divergence_by_loops(1 - true, 1 - predicted, epsilon) for predicted, true in pairs]
    assert result["kl_complement"] == pytest.approx(np.mean(expected), rel=1e-6, abs=1e-9)
    assert result["artifact_frequency"] == np.mean([predicted.max() > 0.5 for predicted in predictions])


@given(maps, maps)
def test_kl_equals_torchs(predicted, true):
    clipped = torch.from_numpy(predicted).clamp(1e-6, 1 - 1e-6)
    expected = torch.nn.functional.kl_div(clipped.log(), torch.from_numpy(true), reduction="sum").item() / true.size
    result = artifact_map([predicted], [true], bootstrap=NO_INTERVALS)
    assert result["kl"] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_misses_raise_one_divergence_and_false_alarms_the_other():
    nothing, all_over = np.zeros((4, 4)), np.ones((4, 4))
    missed, false = artifact_map([nothing], [all_over]), artifact_map([all_over], [nothing])
    assert missed["kl"] == pytest.approx(-math.log(1e-6)) and missed["kl_complement"] == 0.0
    assert false["kl"] == 0.0 and false["kl_complement"] == pytest.approx(-math.log(1e-6))
    assert missed["mse"] == false["mse"] == 1.0


def test_images_count_the_same_whatever_their_size():
    small, large = np.zeros((1, 1)), np.zeros((10, 10))
    assert artifact_map([small + 1, large], [small, large])["mse"] == 0.5


def test_the_frequency_counts_maxima_above_the_threshold():
    predictions = [np.array([[0.1, peak]]) for peak in (0.2, 0.5, 0.6, 1.0)]
    result = artifact_frequency(predictions)
    assert (result["artifact_frequency"], result["n"]) == (0.5, 4)
    assert result["artifact_frequency_interval"] == [0.0, 1.0]
    assert artifact_frequency(predictions, threshold=0.1)["artifact_frequency"] == 1.0
    assert artifact_map(predictions, predictions)["artifact_frequency"] == 0.5


@pytest.mark.parametrize(("peak", "bounds"), [(1.0, [0.4385, 1.0]), (0.0, [0.0, 0.5615])])
def test_a_frequency_of_none_or_all_is_uncertain_with_few_images(peak, bounds):
    predictions = [np.array([[0.0, peak]])] * 3
    for result in (artifact_frequency(predictions), artifact_map(predictions, predictions)):
        assert result["artifact_frequency"] == peak
        # Wilson's interval of none or all of 3: 1.96² / (3 + 1.96²) = 0.5615.
        assert result["artifact_frequency_interval"] == pytest.approx(bounds, abs=5e-4)


def test_a_faint_map_of_eight_bits_is_not_taken_for_a_mask():
    """The output of a detector on a clean image, saved as PNG, may have 1 of 255 as its greatest value."""
    faint, mask = np.array([[0, 1]], dtype=np.uint8), np.array([[0.0, 1.0]])
    for score in (lambda: artifact_frequency([faint]), lambda: artifact_map([faint], [mask])):
        with pytest.raises(ValueError, match="image 0: a map must not hold only the integers 0 and 1, which may be"):
            score()
    assert artifact_frequency([faint * 0, faint / 255, faint > 0, faint * 255])["artifact_frequency"] == 0.5
    assert artifact_map([mask], [faint])["mse"] == 0.0


def test_intervals_are_given_for_every_score():
    generator = np.random.default_rng(0)
    predictions, references = generator.random((2, 20, 4, 4))
    result = artifact_map(predictions, references)
    for name in ("mse", "kl", "kl_complement"):
        low, high = result[f"{name}_interval"]
        assert low < result[name] < high
    assert (result["protocol"], result["epsilon"], result["threshold"]) == ("diffdoctor", 1e-6, 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([np.zeros((2, 3))], [np.zeros((3, 2))]), "image 0: .*the size of its reference, 2x3 px, got 3x2 px"),
        (([np.full((2, 2), 1.2)], [np.zeros((2, 2))]), "image 0: a map of float64 must lie between 0 and 1"),
        (([np.zeros((2, 2))], []), "`predictions` must have the length of `references`, 0, got 1"),
        ((iter([np.zeros((2, 2))]), iter([])), "shorter"),
        (([], []), "at least one sample"),
        (([None], [np.zeros((2, 2))]), "image 0: a map must be bytes, an image or an array, got None"),
        (([], [], 50.0), r"`threshold` must lie in \[0, 1\), got 50.0"),
        (([], [], 0.5, 0.0), "`epsilon` must lie between 0 and 0.5, got 0.0"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        artifact_map(*arguments)


def test_the_module_reads_arrays_images_bytes_and_paths(tmp_path):
    values = np.array([[0, 51, 102, 255]], dtype=np.uint8)
    image = Image.fromarray(values)
    path, file = tmp_path / "map.png", io.BytesIO()
    image.save(path)
    image.save(file, "PNG")
    metric = evaluate.load(metric_path("artifact_map"))
    for form in (values, image, str(path), file.getvalue(), (values / 255).astype(np.float32)):
        result = metric.compute(predictions=[form], references=[np.zeros((1, 4), dtype=np.float32)])
        assert result["mse"] == pytest.approx(np.mean((values / 255) ** 2))


def test_the_module_adds_batches_and_combines():
    generator = np.random.default_rng(0)
    predictions, references = generator.random((2, 3, 4, 4), dtype=np.float32)
    metric = evaluate.load(metric_path("artifact_map"))
    metric.add_batch(predictions=predictions[:2], references=references[:2])
    metric.add(prediction=predictions[2], reference=references[2])
    result = metric.compute(n_resamples=10)
    assert result == artifact_map(predictions, references, bootstrap=Bootstrap(10))
    both = evaluate.combine([metric, evaluate.load(metric_path("artifact_detection"))])
    assert both.evaluation_module_names == ["artifact_map", "artifact_detection"]
    twice = evaluate.combine({"a": metric, "b": evaluate.load(metric_path("artifact_map"))})
    combined = twice.compute(predictions=predictions, references=references, n_resamples=0)
    assert combined["a_mse"] == combined["b_mse"] == result["mse"]


def test_the_frequency_needs_no_references():
    metric = evaluate.load(metric_path("artifact_map"), "frequency")
    result = metric.compute(predictions=[np.full((2, 2), 0.7, dtype=np.float32), np.zeros((2, 2), dtype=np.float32)])
    assert result["artifact_frequency"] == 0.5
    with pytest.raises(ValueError, match="`config_name` must be one of default, frequency, got 'maps'"):
        evaluate.load(metric_path("artifact_map"), "maps")
