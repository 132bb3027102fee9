"""Tests of `box_detection` against COCOeval, torchmetrics and worked cases."""

from __future__ import annotations

import doctest
import math

import evaluate
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import ndimage
from torchmetrics.detection import MeanAveragePrecision

import evaluate_metrics.functional.box_detection as boxes_module
import evaluate_metrics.functional.instances as instances_module
from evaluate_metrics import metric_path
from evaluate_metrics.functional.box_detection import box_detection
from evaluate_metrics.functional.instances import instance_detection, match_instances
from evaluate_metrics.functional.intervals import Bootstrap


NO_INTERVALS = Bootstrap(n_resamples=0)
COCO_ORDER = (
    "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
    "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip
TORCHMETRICS_NAMES = (
    "map", "map_50", "map_75", "map_small", "map_medium", "map_large",
    "mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large",
)  # fmt: skip


def scene(seed, images=12, classes=("hand", "face", "text")):
    """Make boxes of all sizes; predictions are moved true boxes, some twice, and false ones, with distinct scores."""
    generator = np.random.default_rng(seed)
    truths, predictions, true_labels, labels = [], [], [], []
    for _ in range(images):
        corner = generator.integers(0, 200, (generator.integers(0, 5), 2))
        true = np.concatenate([corner, corner + generator.integers(8, 180, corner.shape)], axis=1).astype(float)
        names = generator.choice(classes, len(true))
        kept = generator.integers(0, max(len(true), 1), generator.integers(0, 12) if len(true) else 0)
        moved = true[kept] + generator.integers(-6, 7, (len(kept), 4))
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2])
        invented = np.tile([3.0, 3.0, 60.0, 40.0], (int(generator.integers(2)), 1))
        truths.append(true.tolist())
        predictions.append(np.concatenate([moved, invented]).tolist())
        true_labels.append(names.tolist())
        labels.append([*names[kept].tolist(), *["hand"] * len(invented)])
    ranks = iter(generator.permutation(sum(map(len, predictions))) / 1000)
    scores = [[float(next(ranks)) for _ in of_image] for of_image in predictions]
    return predictions, truths, scores, labels, true_labels


def score(drawn, bootstrap=NO_INTERVALS):
    predictions, truths, scores, labels, true_labels = drawn
    return box_detection(predictions, truths, scores, labels, true_labels, bootstrap)


def coco(boxes, scores, labels, names):
    """Convert boxes to COCO's own format."""
    annotations = [
        {"image_id": image, "bbox": [x0, y0, x1 - x0, y1 - y0], "score": score, "category_id": names.index(label)}
        for image, rows in enumerate(zip(boxes, scores, labels, strict=True))
        for (x0, y0, x1, y1), score, label in zip(*rows, strict=True)
    ]
    for index, annotation in enumerate(annotations):
        width, height = annotation["bbox"][2:]
        annotation.update(id=index + 1, area=width * height, iscrowd=0)
    loaded = COCO()
    loaded.dataset = {
        "images": [{"id": image} for image in range(len(boxes))],
        "annotations": annotations,
        "categories": [{"id": index} for index in range(len(names))],
    }
    loaded.createIndex()
    return loaded


def coco_numbers(predictions, truths, scores, labels, true_labels):
    names = sorted({name for of_image in (*labels, *true_labels) for name in of_image})
    ones = [[1.0] * len(of_image) for of_image in truths]
    evaluator = COCOeval(coco(truths, ones, true_labels, names), coco(predictions, scores, labels, names), "bbox")
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    return [float("nan") if value == -1 else value for value in evaluator.stats]


def numbers(result):
    return [result[name] for name in COCO_ORDER]


@pytest.mark.parametrize("seed", range(6))
def test_equals_cocoeval(seed):
    drawn = scene(seed)
    assert numbers(score(drawn)) == pytest.approx(coco_numbers(*drawn), nan_ok=True, abs=1e-12)


def test_equals_cocoeval_with_equal_scores():
    predictions, truths, _, _, _ = scene(0, images=30)
    one_class = [[["artifact"] * len(of_image) for of_image in boxes] for boxes in (predictions, truths)]
    ones = [[1.0] * len(of_image) for of_image in predictions]
    expected = coco_numbers(predictions, truths, ones, *one_class)
    assert numbers(box_detection(predictions, truths, bootstrap=NO_INTERVALS)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_equals_torchmetrics(seed):
    predictions, truths, scores, labels, true_labels = drawn = scene(seed, images=8)
    classes = {"face": 0, "hand": 1, "text": 2}

    def record(boxes, names):
        return {
            "boxes": torch.tensor(boxes).reshape(-1, 4),
            "labels": torch.tensor([classes[name] for name in names], dtype=torch.int64),
        }

    # By default its thresholds are rounded to float32, which moves a recall of exactly 1/5 to the next level.
    metric = MeanAveragePrecision(
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
        class_metrics=True,
        backend="pycocotools",
    )
    metric.update(
        [
            record(boxes, names) | {"scores": torch.tensor(of_image)}
            for boxes, of_image, names in zip(predictions, scores, labels, strict=True)
        ],
        [record(boxes, names) for boxes, names in zip(truths, true_labels, strict=True)],
    )
    expected = metric.compute()
    result = score(drawn)
    found = [-1 if np.isnan(value) else value for value in numbers(result)]
    assert found == pytest.approx([float(expected[name]) for name in TORCHMETRICS_NAMES], abs=1e-6)
    present = [name for name, index in classes.items() if index in expected["classes"]]
    by_class = [result["ap_by_class"][name] for name in present]
    assert by_class == pytest.approx(expected["map_per_class"].tolist(), abs=1e-6)


@settings(max_examples=25)
@given(draws=st.lists(st.integers(0, 5), min_size=6, max_size=6), seed=st.integers(0, 20))
def test_a_resampled_dataset_scores_as_its_images_repeated(draws, seed):
    """The intervals weight images, which must equal scoring a dataset with those images repeated."""
    drawn = scene(seed, images=6)
    repeated = [[column[image] for image in sorted(draws)] for column in drawn]
    names = sorted({name for column in drawn[3:] for of_image in column for name in of_image}) or ["hand"]
    matches = boxes_module._matches(drawn[0], drawn[1], drawn[2], drawn[3], drawn[4], names)
    weights = np.bincount(draws, minlength=6).astype(float)
    found = boxes_module._scores(matches, weights, names)
    expected = score(repeated)
    assert numbers(found) == pytest.approx(numbers(expected), nan_ok=True, abs=1e-12)


def test_by_hand():
    """Ranked boxes are right, wrong, right of three true ones: precision 1 up to recall 1/3, 2/3 up to 2/3, then 0."""
    truths = [[(0, 0, 100, 100), (200, 200, 300, 300)], [(0, 0, 50, 100)]]
    predictions = [[(0, 0, 100, 100), (400, 0, 500, 100)], [(0, 0, 50, 100)]]
    result = box_detection(predictions, truths, [[0.9, 0.8], [0.7]], bootstrap=NO_INTERVALS)
    levels = np.linspace(0, 1, 101)
    assert result["ap"] == pytest.approx(np.select([levels <= 1 / 3, levels <= 2 / 3], [1, 2 / 3], 0).mean())
    assert (result["ap50"], result["ap75"]) == (pytest.approx(result["ap"]), pytest.approx(result["ap"]))
    assert (result["ar1"], result["ar100"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    # Two boxes of 100 x 100 px are large, and one of them is found; the box of 50 x 100 px is medium.
    assert (result["ar_large"], result["ar_medium"]) == (0.5, 1.0)
    assert np.isnan(result["ar_small"])


def test_ar_limits_count_the_best_boxes_of_an_image():
    truths = [[(index * 20, 0, index * 20 + 10, 10) for index in range(12)]]
    result = box_detection(truths, truths, bootstrap=NO_INTERVALS)
    assert [result[name] for name in ("ar1", "ar10", "ar100")] == pytest.approx([1 / 12, 10 / 12, 1])


def test_without_scores_ap_depends_on_the_order_of_the_images_and_ar_does_not():
    truths = [[(0, 0, 10, 10)], [(0, 0, 10, 10)]]
    predictions = [truths[0], [(50, 50, 60, 60)]]
    here, reversed_ = (box_detection(predictions[::step], truths, bootstrap=NO_INTERVALS) for step in (1, -1))
    assert here["ap"] > reversed_["ap"]
    assert here["ar100"] == reversed_["ar100"] == 0.5


def test_wrong_class_is_no_match():
    box = [[(0, 0, 10, 10)]]
    result = box_detection(box, box, None, [["hand"]], [["face"]], NO_INTERVALS)
    assert (result["ap"], result["ar100"]) == (0.0, 0.0)
    assert result["ap_by_class"] == {"face": 0.0, "hand": pytest.approx(float("nan"), nan_ok=True)}
    assert box_detection(box, box, bootstrap=NO_INTERVALS)["ap"] == pytest.approx(1.0)


def test_unparsable_answer_is_no_box_and_counted():
    truths = [[(0, 0, 10, 10)], [(0, 0, 10, 10)]]
    failed = box_detection([truths[0], None], truths, [[0.5], None], bootstrap=NO_INTERVALS)
    silent = box_detection([truths[0], []], truths, [[0.5], []], bootstrap=NO_INTERVALS)
    assert (failed.pop("parse_failure_rate"), silent.pop("parse_failure_rate")) == (0.5, 0.0)
    assert numbers(failed) == pytest.approx(numbers(silent), nan_ok=True)


def test_without_a_true_box_there_is_no_score():
    for boxes in ([], [(0, 0, 10, 10)]):
        result = box_detection([boxes], [[]], bootstrap=Bootstrap(5))
        assert np.isnan(numbers(result)).all()
        assert np.isnan(result["ap_interval"]).all()


def test_intervals_hold_the_scores_and_depend_on_the_seed_only():
    drawn = scene(1, images=30)
    first, again, other = (score(drawn, Bootstrap(60, seed=seed)) for seed in (0, 0, 1))
    assert first == again
    assert first["ap_interval"] != other["ap_interval"]
    for name in COCO_ORDER:
        low, high = first[f"{name}_interval"]
        assert low < first[name] < high
    for name, ap in first["ap_by_class"].items():
        low, high = first["ap_by_class_interval"][name]
        assert low < ap < high


def test_prints_nothing(capsys):
    score(scene(0, images=2))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "`references` must hold at least one image"),
        (([[]], [[], []]), "`predictions` must have the length of `references`, 2, got 1"),
        (([[(5, 0, 1, 9)]], [[]]), r"`predictions` must be boxes .*got \(5, 0, 1, 9\) for image 0"),
        (([[]], [[(0, 0, math.nan, 9)]]), "`references` must be boxes"),
        (([[(0, 0, 9)]], [[]]), "`predictions` must be boxes"),
        (([[(0, 0, 9, 9)]], [[]], [[]]), "`scores` must hold one value for each of the 1 boxes of image 0, got 0"),
        (([[(0, 0, 9, 9)]], [[]], [[math.nan]]), "`scores` must be finite, got .nan. for image 0"),
        (([[]], [[]], []), "`scores` must hold a list for each of 1 images, got 0"),
        (([[]], [[]], None, [[]]), "given together, got `prediction_labels` alone"),
        (([[]], [[(0, 0, 9, 9)]], None, [[]], [[]]), "`reference_labels` must hold one value for each of the 1 boxes"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        box_detection(*arguments)


def test_module_equals_the_function():
    metric = evaluate.load(metric_path("box_detection"))
    predictions, truths, scores, labels, true_labels = scene(2, images=4)
    predictions[1], scores[1], labels[1] = None, None, None
    options = {"n_resamples": 20, "confidence": 0.9, "seed": 3}
    expected = box_detection(predictions, truths, scores, labels, true_labels, Bootstrap(20, 0.9, 3))
    keywords = {"scores": scores, "prediction_labels": labels, "reference_labels": true_labels, **options}
    assert repr(metric.compute(predictions=predictions, references=truths, **keywords)) == repr(expected)
    for start in (0, 2):
        metric.add_batch(predictions=predictions[start : start + 2], references=truths[start : start + 2])
    assert repr(metric.compute(**keywords)) == repr(expected)  # NaN equals itself in writing
    combined = evaluate.combine({"first": metric, "second": metric_path("box_detection")})
    result = combined.compute(predictions=predictions, references=truths, n_resamples=0)
    assert result["first_ap"] == result["second_ap"]
    assert result["first_n"] == 4


def test_examples():
    folder = metric_path("box_detection")
    metric = evaluate.load(folder)
    example = doctest.DocTestParser().get_doctest(metric.inputs_description, {}, metric.name, None, None)
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0
    for results in (doctest.testmod(boxes_module), doctest.testfile(f"{folder}/README.md", module_relative=False)):
        assert (results.failed, bool(results.attempted)) == (0, True)


def square(x, y, side):
    """Make a polygon whose outline is drawn, so that it covers `side` pixels each way."""
    return (x, y, x + side - 1, y, x + side - 1, y + side - 1, x, y + side - 1)


def test_examples_of_the_instances_run():
    assert doctest.testmod(instances_module).failed == 0


def test_a_box_matches_where_more_than_half_of_it_lies_on_an_instance():
    half, more = (0, 0, 8, 4), (0, 0, 7, 4)
    # 16 of 32 px are exactly half, 16 of 28 px are more; the instance may be far larger than the box.
    assert match_instances([half], [square(0, 0, 4)], (32, 32)) == (0, 1, 1)
    assert match_instances([more], [square(0, 0, 4)], (32, 32)) == (1, 0, 0)
    assert match_instances([(3, 3, 5, 5)], [square(0, 0, 30)], (32, 32)) == (1, 0, 0)


@pytest.mark.parametrize(("gap", "instances"), [(1, 1), (4, 1), (5, 2), (9, 2)])
def test_a_dilation_by_5_px_connects_areas_also_over_corners(gap, instances):
    for step in ((gap, 0), (0, gap), (gap, gap)):
        second = square(5 + 6 * bool(step[0]) + step[0], 5 + 6 * bool(step[1]) + step[1], 6)
        assert match_instances([], [square(5, 5, 6), second], (40, 40)) == (0, instances, 0)


def test_matches_are_flags_and_not_one_to_one():
    twice = [(0, 0, 4, 4), (1, 1, 5, 5)]
    assert match_instances(twice, [square(0, 0, 8)], (40, 40)) == (1, 0, 0)
    # The dilation connects the squares, but only pixels before the dilation count.
    assert match_instances([(4, 0, 8, 4)], [square(0, 0, 4), square(8, 0, 4)], (40, 40)) == (0, 1, 1)


@pytest.mark.parametrize("box", [(-1, 0, 4, 4), (0, 0, 41, 4), (4, 4, 4, 8), (0.2, 0, 0.9, 4)])
def test_boxes_out_of_the_image_or_without_a_pixel_are_false(box):
    assert match_instances([box], [square(0, 0, 40)], (40, 40)) == (0, 1, 1)


@pytest.mark.parametrize("seed", range(4))
def test_components_equal_scipys(seed):
    mask = np.random.default_rng(seed).random((40, 50)) < (0.02, 0.1, 0.4, 0.7)[seed]
    dilated = ndimage.binary_dilation(mask, np.ones((5, 5)))
    assert np.array_equal(instances_module._dilated(mask), dilated)
    for of_mask in (mask, dilated):
        ours, (theirs, total) = instances_module.connected_components(of_mask), ndimage.label(of_mask, np.ones((3, 3)))
        pairs = np.unique(np.stack([ours, theirs]).reshape(2, -1), axis=1)
        assert ours.max() == total and pairs.shape[1] == len(np.unique(ours)) == len(np.unique(theirs))


def test_components_are_numbered_by_their_first_rows_then_from_the_left():
    mask = np.zeros((12, 16), dtype=bool)
    mask[0, 1] = mask[0, 5] = mask[4:9, 12] = True
    mask[2:, 1] = mask[11, 1:9] = mask[2:, 8] = True  # two arms that meet below all others
    expected = np.zeros(mask.shape, dtype=np.int64)
    expected[0, 1], expected[0, 5] = 1, 2
    expected[2:, 1] = expected[11, 1:9] = expected[2:, 8] = 3
    expected[4:9, 12] = 4
    assert np.array_equal(instances_module.connected_components(mask), expected)


def test_instances_are_those_of_a_class_and_an_image():
    sizes, regions = [(40, 40)] * 2, [[square(0, 0, 8), square(20, 20, 8)], []]
    labels = [["hand", "face"], []]
    boxes, named = [[(0, 0, 8, 8), (20, 20, 28, 28)], None], [["hand", "hand"], None]
    result = box_detection(
        boxes, regions, prediction_labels=named, reference_labels=labels, protocol="x_aigd", sizes=sizes
    )
    assert result["counts"] == {"found": 1, "missed": 1, "false": 1}
    assert result["precision"] == result["recall"] == result["f1"] == 0.5 == result["parse_failure_rate"]
    assert result["by_class"]["hand"]["counts"] == {"found": 1, "missed": 0, "false": 1}
    assert result["by_class"]["face"]["recall"] == 0 and result["protocol"] == "x_aigd"
    assert instance_detection(boxes, regions, sizes)["f1"] == 1.0


def test_the_module_takes_polygons():
    metric = evaluate.load(metric_path("box_detection"), "polygons")
    result = metric.compute(
        predictions=[[[0, 0, 8, 8]]], references=[[list(square(0, 0, 8))]], protocol="x_aigd", sizes=[(40, 40)]
    )
    assert result["f1"] == 1.0
    with pytest.raises(ValueError, match="`config_name` must be one of"):
        evaluate.load(metric_path("box_detection"), "polygon")


def test_wrong_settings_of_the_instances_are_named():
    for options, message in (
        ({"protocol": "x-aigd"}, "`protocol` must be one of coco, x_aigd, got 'x-aigd'"),
        ({"protocol": "x_aigd"}, "`sizes` must be the width and height"),
        ({"protocol": "x_aigd", "sizes": []}, "`sizes` must have the length of `references`"),
    ):
        with pytest.raises(ValueError, match=message):
            box_detection([[]], [[]], **options)


@pytest.mark.parametrize("found", [True, False])
def test_all_or_nothing_of_few_images_is_uncertain(found):
    boxes = [[(0, 0, 40, 40)]] * 4
    answers = boxes if found else [[]] * 4
    labels = [["hand"]] * 4
    result = box_detection(
        answers,
        boxes,
        prediction_labels=labels if found else [[]] * 4,
        reference_labels=labels,
        bootstrap=Bootstrap(50),
    )
    wide = [0.5101, 1.0] if found else [0.0, 0.4899]
    for interval in (result["ap_interval"], result["ar100_interval"], result["ap_by_class_interval"]["hand"]):
        assert interval == pytest.approx(wide, abs=1e-4)
    assert np.isnan(result["ap_small"])
