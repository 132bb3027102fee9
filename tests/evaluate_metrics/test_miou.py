"""Tests of regions and mIoU against loops over pixels, pycocotools, scikit-learn, torchmetrics and worked cases."""

import doctest
import io
import math
from typing import Any

import evaluate
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco_mask
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score
from torchmetrics.functional.classification import binary_f1_score, binary_jaccard_index

from evaluate_metrics import metric_path
from evaluate_metrics.functional import miou as miou_module
from evaluate_metrics.functional import regions
from evaluate_metrics.functional.intervals import Bootstrap
from evaluate_metrics.functional.miou import EMPTY_POLICIES, PROTOCOLS, miou, score_pixel_counts
from evaluate_metrics.functional.regions import heat_map, pixel_counts, region_mask, region_size
from evaluate_metrics.miou import miou as evaluate_module


NO_INTERVALS = Bootstrap(n_resamples=0)
SIZE = (7, 5)
SCORES = ("miou", "f1", "precision", "recall")

masks = arrays(bool, SIZE[::-1])
coordinates = st.floats(-3, 10).map(lambda value: round(value * 4) / 4)
boxes = st.lists(
    st.tuples(coordinates, coordinates, coordinates, coordinates).map(
        lambda box: (min(box[::2]), min(box[1::2]), max(box[::2]), max(box[1::2]))
    ),
    max_size=3,
)
polygons = st.lists(st.lists(st.floats(-2, 6), min_size=6, max_size=10).filter(lambda p: len(p) % 2 == 0), max_size=2)


def rle_of(mask, form="str"):
    rle = coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))
    if form == "str":
        return {**rle, "counts": rle["counts"].decode()}
    if form == "bytes":
        return rle
    flat = mask.ravel(order="F")
    ends = [*np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size]
    return {"size": list(mask.shape), "counts": [0] * int(flat[0]) + np.diff([0, *ends]).tolist()}


def png_of(values):
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


rles = st.builds(rle_of, masks, st.sampled_from(["str", "bytes", "list"]))
anything = st.one_of(masks, boxes, polygons, st.lists(rles, max_size=2), st.lists(st.one_of(rles, masks), max_size=2))


def mask_by_loops(of_boxes, size):
    width, height = size
    mask = np.zeros((height, width), dtype=bool)
    for x in range(width):
        for y in range(height):
            for x_min, y_min, x_max, y_max in of_boxes:
                mask[y, x] |= x_min <= x + 0.5 < x_max and y_min <= y + 0.5 < y_max
    return mask


def counts_by_loops(predicted, true):
    counts = [0, 0, 0, 0]
    for first, second in zip(predicted.ravel().tolist(), true.ravel().tolist(), strict=True):
        counts[{(True, True): 0, (True, False): 1, (False, True): 2, (False, False): 3}[first, second]] += 1
    return counts


def divided(numerator, denominator):
    return numerator / denominator if denominator else 0.0


def scores_by_hand(counts, background, empty):
    hits, false, missed, neither = counts
    if hits + false + missed:
        scores = [
            divided(hits, hits + false + missed),
            divided(2 * hits, 2 * hits + false + missed),
            divided(hits, hits + false),
            divided(hits, hits + missed),
        ]
    else:
        policies: dict = {"one": [1.0] * 4, "zero": [0.0] * 4, "skip": [None] * 4, "legion": [0.0, 1.0, 0.0, 0.0]}
        scores = policies[empty]
    if background:
        nothing = {"one": 1.0, "zero": 0.0, "skip": None, "legion": 0.0}[empty]
        other = neither / (neither + false + missed) if neither + false + missed else nothing
        classes = [iou for iou in (scores[0], other) if iou is not None]
        scores = [sum(classes) / len(classes), *scores[1:]]
    return scores


def miou_by_hand(pairs, protocol, empty, average):
    """Compute mIoU literally by its definitions, one image after the other."""
    counts = [counts_by_loops(*pair) for pair in pairs]
    if protocol == "artiagent":
        counts = [row for row in counts if row[0] + row[2]]
    if (average or {"legion": "data_set", "x_aigd": "data_set"}.get(protocol, "images")) == "images":
        images = [scores_by_hand(row, protocol == "legion", empty) for row in counts]
        columns = [[image[index] for image in images if image[index] is not None] for index in range(4)]
        return [sum(column) / len(column) if column else None for column in columns]
    return scores_by_hand([sum(column) for column in zip([0] * 4, *counts, strict=True)], protocol == "legion", empty)


@pytest.mark.parametrize("module", [regions, miou_module])
def test_examples_of_docstrings_run(module):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


def test_example_of_the_module_runs():
    parsed = doctest.DocTestParser().get_doctest(evaluate_module._KWARGS_DESCRIPTION, {}, "miou", None, 0)
    result = doctest.DocTestRunner().run(parsed)
    assert result.attempted and not result.failed


@pytest.mark.parametrize("name", ["miou", "artifact_map", "artifact_detection"])
def test_examples_of_the_cards_run(name):
    result = doctest.testfile(f"{metric_path(name)}/README.md", module_relative=False, encoding="utf-8")
    assert result.attempted and not result.failed


@given(boxes)
def test_a_box_holds_the_pixels_whose_centres_it_holds(of_boxes):
    assert np.array_equal(region_mask(of_boxes, SIZE), mask_by_loops(of_boxes, SIZE))


@given(masks, st.sampled_from(["str", "bytes", "list"]))
def test_every_form_of_rle_gives_its_mask_back(mask, form):
    assert np.array_equal(region_mask([rle_of(mask, form)], SIZE), mask)


def test_long_runs_are_read_as_pycocotools_writes_them():
    generator = np.random.default_rng(0)
    for scale in (1, 8, 60, 500):
        rough = generator.random((600 // scale + 1, 500 // scale + 1)) < 0.4
        mask = np.kron(rough, np.ones((scale, scale), dtype=bool))[:600, :500]
        assert np.array_equal(region_mask(rle_of(mask), (500, 600)), mask)


@given(polygons)
def test_polygons_are_rasterised_as_coco_does(of_polygons):
    expected = np.zeros(SIZE[::-1], dtype=bool)
    for polygon in of_polygons:
        expected |= coco_mask.decode(coco_mask.frPyObjects([polygon], SIZE[1], SIZE[0])[0]).astype(bool)
    assert np.array_equal(region_mask(of_polygons, SIZE), expected)


@pytest.mark.parametrize("threshold", [0, 0.3, 0.5])
def test_every_form_of_map_is_cut_above_the_threshold(threshold):
    values = np.arange(256, dtype=np.uint8).reshape(8, 32)
    expected = values / 255 > threshold
    forms = [values, values / 255, (values / 255).astype(np.float32), values.astype(np.int64), values * np.uint16(257)]
    for form in [*forms, Image.fromarray(values), png_of(values), png_of(forms[-1])]:
        assert np.array_equal(region_mask(form, (32, 8), threshold), expected)
    for mask in (expected, expected.astype(int), expected.astype(np.uint8) * 255, png_of(expected), expected * 1.0):
        assert np.array_equal(region_mask(mask, (32, 8), threshold), expected)


def test_a_heat_map_of_sixteen_bits_keeps_its_values():
    assert heat_map(np.array([[13107, 65535]], dtype=np.uint16)).tolist() == [[0.2, 1.0]]


@given(anything, anything)
def test_counts_of_any_two_forms_are_those_of_their_masks(prediction, reference):
    expected = counts_by_loops(region_mask(prediction, SIZE), region_mask(reference, SIZE))
    counts = pixel_counts(prediction, reference, SIZE)
    assert counts.tolist() == expected and counts.dtype == np.int64


@given(masks, arrays(bool, (3, 4)), st.sampled_from(["map", "rle"]))
def test_resizing_takes_the_nearest_pixel(reference, prediction, form):
    nearest = np.zeros_like(reference)
    for y in range(SIZE[1]):
        for x in range(SIZE[0]):
            nearest[y, x] = prediction[int((y + 0.5) * 3 / SIZE[1]), int((x + 0.5) * 4 / SIZE[0])]
    given_form = prediction if form == "map" else [rle_of(prediction)]
    with pytest.raises(ValueError, match="`prediction` must have the size of the image, 7x5 px, got a map of 4x3 px"):
        pixel_counts(given_form, reference, SIZE)
    with pytest.raises(ValueError, match="`reference` must have the size of the image, 7x5 px"):
        pixel_counts(reference, given_form, SIZE, resize="prediction")
    counts = pixel_counts(given_form, reference, SIZE, resize="prediction")
    assert counts.tolist() == counts_by_loops(nearest, reference)
    assert pixel_counts(given_form, reference, SIZE, resize=SIZE).tolist() == counts.tolist()


def test_a_fixed_size_scales_boxes_and_polygons_too():
    left_half = np.zeros((512, 512), dtype=bool)
    left_half[:, :256] = True
    for region in ([(0, 0, 50, 300)], [(0, 0, 50, 0, 50, 300, 0, 300)]):
        assert pixel_counts(region, left_half, (100, 300), resize=(512, 512))[1:3].tolist() == [0, 0]


@given(
    st.lists(st.tuples(masks, masks), min_size=1, max_size=4),
    st.sampled_from(list(PROTOCOLS)),
    st.sampled_from(EMPTY_POLICIES),
    st.sampled_from([None, "images", "data_set"]),
)
def test_scores_equal_the_definitions_in_loops(pairs, protocol, empty, average):
    predictions, references = zip(*pairs, strict=True)
    result = miou(predictions, references, protocol=protocol, empty=empty, average=average, bootstrap=NO_INTERVALS)
    for name, expected in zip(SCORES, miou_by_hand(pairs, protocol, empty, average), strict=True):
        assert math.isnan(result[name]) if expected is None else result[name] == pytest.approx(expected)


@settings(max_examples=30)
@given(st.lists(st.tuples(masks, masks), min_size=1, max_size=4))
def test_scores_equal_scikit_learns_and_torchmetrics(pairs):
    predictions, references = zip(*pairs, strict=True)
    predicted, true = (np.concatenate([mask.ravel() for mask in side]) for side in (predictions, references))
    results = {
        name: miou(predictions, references, protocol=name, empty="zero", bootstrap=NO_INTERVALS) for name in PROTOCOLS
    }
    result = results["x_aigd"]
    for name, score in zip(SCORES, (jaccard_score, f1_score, precision_score, recall_score), strict=True):
        assert result[name] == pytest.approx(score(true, predicted, zero_division=0))
    as_tensors = torch.from_numpy(predicted), torch.from_numpy(true)
    assert result["miou"] == pytest.approx(binary_jaccard_index(*as_tensors).item(), abs=1e-6)
    assert result["f1"] == pytest.approx(binary_f1_score(*as_tensors).item(), abs=1e-6)
    both_classes = jaccard_score(true, predicted, labels=[0, 1], average="macro", zero_division=0)
    assert results["legion"]["miou"] == pytest.approx(both_classes)
    each = [jaccard_score(mask.ravel(), guess.ravel(), zero_division=0) for guess, mask in pairs]
    assert results["menn"]["miou"] == pytest.approx(np.mean(each))


def test_the_same_masks_give_four_different_mious_under_their_own_names():
    """Two artifact images, one partly found and one missed, and a clean image with a false alarm."""
    predictions = [[(0, 0, 2, 2)], [], [(0, 0, 1, 1)]]
    references = [[(0, 0, 4, 2)], [(0, 0, 2, 1)], []]
    results = {name: miou(predictions, references, [(4, 4)] * 3, name) for name in PROTOCOLS}
    assert {name: result["protocol"] for name, result in results.items()} == {name: name for name in PROTOCOLS}
    assert results["artiagent"]["miou"] == pytest.approx((4 / 8 + 0) / 2)
    assert results["legion"]["miou"] == pytest.approx((4 / 11 + 37 / 44) / 2)
    assert results["menn"]["miou"] == pytest.approx((4 / 8 + 0 + 0) / 3)
    assert results["x_aigd"]["miou"] == pytest.approx(4 / 11)
    assert results["artiagent"]["f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert results["x_aigd"]["f1"] == pytest.approx(8 / 15)
    assert [results[name]["n_scored"] for name in PROTOCOLS] == [2, 3, 3, 3]
    assert all(result["n"] == 3 for result in results.values())


def test_legions_script_is_reproduced_with_its_two_treatments_of_nothing():
    """LEGION's IoU of a class is I / (U + 1e-6), its F1 of two empty regions is 1, and it averages over images."""
    nothing, half = np.zeros((4, 4), dtype=bool), np.arange(16).reshape(4, 4) < 8
    pairs = [(nothing, nothing), (half, half), (nothing, half)]
    of_images = []
    for predicted, true in pairs:
        classes = [((predicted == one) & (true == one), (predicted == one) | (true == one)) for one in (False, True)]
        of_images.append(np.mean([both.sum() / (either.sum() + 1e-6) for both, either in classes]))
    predictions, references = zip(*pairs, strict=True)
    result = miou(predictions, references, protocol="legion", average="images", empty="legion")
    assert result["miou"] == pytest.approx(np.mean(of_images), abs=1e-6)
    assert result["f1"] == pytest.approx((1 + 1 + 0) / 3)


@given(st.lists(st.tuples(masks, masks), min_size=1, max_size=4), st.sampled_from(["one", "zero", "skip"]))
def test_a_consistent_policy_keeps_f1_between_iou_and_its_bound(pairs, empty):
    """A published result must satisfy this, unless its F1 and its IoU treat empty images differently."""
    predictions, references = zip(*pairs, strict=True)
    result = miou(predictions, references, protocol="menn", empty=empty, bootstrap=NO_INTERVALS)
    if not math.isnan(result["miou"]):
        assert result["miou"] - 1e-9 <= result["f1"] <= 2 * result["miou"] / (1 + result["miou"]) + 1e-9


def test_a_dataset_without_artifacts_has_no_score_by_the_first_protocol():
    result = miou([[(0, 0, 1, 1)]], [[]], [(4, 4)])
    assert math.isnan(result["miou"]) and result["n_scored"] == 0


def test_intervals_resample_images():
    generator = np.random.default_rng(0)
    counts = generator.integers(1, 50, (200, 4))
    result = score_pixel_counts(counts, "artiagent")
    ious = counts[:, 0] / counts[:, :3].sum(axis=1)
    low, high = result["miou_interval"]
    assert low < result["miou"] < high
    assert high - low == pytest.approx(2 * 1.96 * ious.std() / np.sqrt(200), rel=0.15)
    assert result == score_pixel_counts(counts, "artiagent")
    assert set(result) >= {f"{name}_interval" for name in SCORES} | {"empty", "average", "versions"}
    assert "miou_interval" not in score_pixel_counts(counts, bootstrap=NO_INTERVALS)


def test_generators_are_read_and_settings_returned():
    mask = np.eye(4, dtype=np.float32) * 0.4
    result = miou((mask for _ in range(3)), (mask > 0 for _ in range(3)), threshold=0.3, resize=(8, 8))
    assert (result["miou"], result["n"], result["threshold"], result["resize"]) == (1.0, 3, 0.3, [8, 8])


def test_sizes_are_those_of_references_that_have_one():
    mask = np.eye(4, 6, dtype=bool)
    assert region_size(mask) == region_size([(0, 0, 1, 1), rle_of(mask)]) == (6, 4)
    assert miou([[(0, 0, 6, 4)]], [rle_of(mask)])["recall"] == 1.0
    with pytest.raises(ValueError, match="`sizes` must be given if"):
        miou([mask], [[(0, 0, 1, 1)]])


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ([(0, 0, 1)], "box of 4 numbers or a polygon of 6, 8, ..., got 3"),
        ((0, 0, 1, 1), "list of boxes, polygons, RLE or maps, got a list with 0"),
        ("no", "got a list with 'n'"),
        ([(3, 0, 1, 1)], r"a box must be finite .* got \(3, 0, 1, 1\)"),
        ([(0, 0, math.nan, 1)], "a box must be finite"),
        ([(0, 0, 1, 1, math.nan, 1)], "a polygon must lie within"),
        ([(0, 0, 1, 1, 1e9, 1)], "a polygon must lie within"),
        ({"counts": "0"}, r"an RLE must have `size` and `counts`, got \['counts'\]"),
        ({"size": [5, 7], "counts": [5, 5]}, "of 7x5 px must add up to 35 pixels, got 10"),
        ({"size": [5, 7], "counts": [-1, 36]}, "must add up to 35 pixels"),
        ({"size": [5, 7], "counts": []}, "must add up to 35 pixels, got 0"),
        ({"size": [5, 7], "counts": "55"}, "must add up to 35 pixels, got 10"),
        ({"size": [5, 7], "counts": "5T"}, "compressed string, got"),
        ({"size": [5, 7], "counts": "z" * 40 + "0"}, "compressed string, got"),
        ({"size": [5, 7], "counts": "o" * 40 + "0"}, "numbers of at most 60 bits"),
        ({"size": [5, 7], "counts": b"b'00'"}, "compressed string, got"),
        ({"size": [5, 7], "counts": "o" * 11 + "O"}, "must add up to 35 pixels"),
        ({"size": [5, 7], "counts": ""}, "compressed string, got"),
        (np.zeros((5, 7, 3)), r"shape \(height, width\), got \(5, 7, 3\)"),
        (np.full((5, 7), 1.5), "a map of float64 must lie between 0 and 1, got 1.5"),
        (np.full((5, 7), math.nan), "must lie between 0 and 1, got nan"),
        (np.full((5, 7), -1), "must lie between 0 and 1, got -1"),
        (np.full((5, 7), 300), "must lie between 0 and 255"),
        (np.full((5, 7), "a"), "booleans, integers or floats"),
        (b"no image", "a whole image file such as PNG, got b'no image'"),
        (png_of(np.zeros((5, 7), dtype=np.uint8))[:45], "a whole image file"),
        (None, r"a map or a list of parts \(\[\] for an empty region\), got None"),
        (Image.new("RGB", (7, 5)), "greyscale image .* got mode RGB"),
        (Image.new("P", (7, 5)), "greyscale image .* got mode P"),
        (np.zeros((4, 7)), "`region` must have the size of the image, 7x5 px, got a map of 7x4 px"),
    ],
)
def test_a_region_that_cannot_be_read_is_named(region, message):
    with pytest.raises(ValueError, match=message):
        region_mask(region, SIZE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"protocol": "coco"}, "`protocol` must be one of .*'artiagent'.* got 'coco'"),
        ({"empty": "half"}, "`empty` must be one of .*'skip'.* got 'half'"),
        ({"average": "classes"}, "`average` must be one of .*'data_set'.* got 'classes'"),
        ({"resize": "both"}, "image 0: `resize` must be 'error', 'prediction', or a width and height, got 'both'"),
        ({"resize": (0, 4)}, r"`resize` must be two sides of at least 1 px each, got \(0, 4\)"),
        ({"threshold": 1.0}, r"`threshold` must lie in \[0, 1\), got 1.0"),
        ({"sizes": [(4, 0)]}, r"`size` must be two sides of at least 1 px each, got \(4, 0\)"),
        ({"sizes": []}, "`sizes` must have the length of `references`, 1, got 0"),
        ({"predictions": []}, "`predictions` must have the length of `references`, 1, got 0"),
        ({"predictions": [], "references": [], "sizes": []}, "at least one sample"),
        ({"predictions": [[(1, 0)]]}, "image 0: a part of a region must be"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        miou(**{"predictions": [[]], "references": [[(0, 0, 1, 1)]], "sizes": [(4, 4)], **arguments})


def test_counts_must_be_four_a_row():
    with pytest.raises(ValueError, match=r"`counts` must have the shape \(images, 4\), got \(3,\)"):
        score_pixel_counts(np.array([1, 2, 3]))


def _forms(tmp_path):
    generator = np.random.default_rng(0)
    of_boxes = [[(0.0, 0.0, 3.0, 2.0)], [(1.0, 1.0, 6.0, 4.0), (0.0, 0.0, 2.0, 2.0)], []]
    all_masks = [region_mask(region, SIZE) for region in of_boxes]
    order = generator.permutation(3)
    path = tmp_path / "mask.png"
    path.write_bytes(png_of(all_masks[0]))
    forms: dict[str, list] = {
        "boxes": of_boxes,
        "polygons": [[(a, b, c, b, c, d, a, d) for a, b, c, d in region] for region in of_boxes],
        "rle": [[rle_of(mask)] if mask.any() else [] for mask in all_masks],
        "masks": [str(path), Image.fromarray(all_masks[1]), all_masks[2]],
    }
    return {name: (values, [values[index] for index in order]) for name, values in forms.items()}


def test_every_configuration_of_the_module_gives_the_same(tmp_path):
    forms = _forms(tmp_path)
    expected = miou(forms["boxes"][0], forms["boxes"][1], [SIZE] * 3, "legion")
    assert 0 < expected["miou"] < 1 and expected["n"] == 3
    for name, (predictions, references) in forms.items():
        sizes = {} if name == "masks" else {"sizes": [SIZE] * 3}
        metric = evaluate.load(metric_path("miou"), name)
        assert metric.compute(predictions=predictions, references=references, **sizes, protocol="legion") == expected


def test_the_module_adds_batches_and_combines():
    metric = evaluate.load(metric_path("miou"))
    metric.add_batch(predictions=[[(0, 0, 2, 2)], []], references=[[(0, 0, 4, 2)], [(0, 0, 2, 1)]], sizes=[(4, 4)] * 2)
    metric.add(predictions=[[0, 0, 1, 1]], references=[], sizes=(4, 4))
    result = metric.compute(protocol="x_aigd", n_resamples=20)
    assert result["miou"] == pytest.approx(4 / 11)
    again = evaluate.load(metric_path("miou"))
    both = evaluate.combine([metric, again])
    inputs = {"predictions": [[(0, 0, 2, 2)]], "references": [[(0, 0, 4, 2)]], "sizes": [(4, 4)]}
    combined = both.compute(**inputs, protocol="menn")
    assert combined["miou_0_miou"] == combined["miou_1_miou"] == 0.5


def test_masks_of_another_size_are_resized_through_the_module():
    metric = evaluate.load(metric_path("miou"), "masks")
    inputs = {"predictions": [np.eye(2, dtype=bool)], "references": [np.kron(np.eye(2), np.ones((3, 3))) > 0]}
    assert metric.compute(**inputs, resize="prediction")["miou"] == 1.0
    with pytest.raises(ValueError, match="`prediction` must have the size of the image, 6x6 px"):
        metric.compute(**inputs)


def test_the_module_names_an_image_without_an_answer():
    for name, reference, sizes in (("boxes", [(0, 0, 1, 1)], {"sizes": [(2, 2)]}), ("masks", np.eye(2) > 0, {})):
        metric = evaluate.load(metric_path("miou"), name)
        with pytest.raises(ValueError, match="image 0: a region must be .* got None"):
            metric.compute(predictions=[None], references=[reference], **sizes)


def test_sizes_of_masks_may_be_given_and_are_checked():
    metric = evaluate.load(metric_path("miou"), "masks")
    mask = np.eye(2, dtype=bool)
    assert metric.compute(predictions=[mask], references=[mask], sizes=[(2, 2)])["miou"] == 1.0
    with pytest.raises(ValueError, match="`prediction` must have the size of the image, 3x2 px"):
        metric.compute(predictions=[mask], references=[mask], sizes=[(3, 2)])


def test_an_unknown_configuration_is_named():
    with pytest.raises(ValueError, match="`config_name` must be one of boxes, polygons, rle, masks, got 'mask'"):
        evaluate.load(metric_path("miou"), "mask")


def label_map(**classes):
    """Make a map of class numbers of 20 × 20 px; each class fills a quarter, the first the upper left."""
    values = np.zeros((20, 20), np.uint8)
    quarters = [(slice(10), slice(10)), (slice(10), slice(10, 20)), (slice(10, 20), slice(10))]
    for quarter, number in zip(quarters, classes.values(), strict=False):
        values[quarter] = number
    return values


def palette_png_of(values):
    image = Image.fromarray(values)
    image.putpalette([(7 * number) % 256 for number in range(768)])
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "classes", [{"a": 2}, {"a": 7}, {"a": 3, "b": 7}, {"a": 1, "b": 255}, {"a": 4, "b": 9, "c": 19}]
)
@pytest.mark.parametrize("form", [np.asarray, png_of])
def test_class_numbers_are_refused_by_the_values_seen(classes, form):
    seen = ", ".join(map(str, [0, *classes.values()]))
    values = label_map(**classes)
    with pytest.raises(ValueError, match=f"image 0: .* got the values {seen}, which look like class numbers"):
        miou([form(values)], [form(values)], bootstrap=NO_INTERVALS)


def test_faint_heat_maps_and_masks_are_no_class_numbers():
    truth = label_map(a=1)
    for values in (truth, truth * 255, truth * 128, truth * 64, np.zeros_like(truth)):
        miou([values], [truth], bootstrap=NO_INTERVALS)
    ramp = np.linspace(0, 9, 400).astype(np.uint8).reshape(20, 20)
    assert miou([ramp], [truth], bootstrap=NO_INTERVALS)["miou"] == 0


def test_named_classes_are_scored_and_ignored_pixels_are_in_no_count():
    truth = label_map(artifact=2, ignored=255, other=5)
    predicted = label_map(artifact=2, false_but_ignored=2, false=2)
    for form in (np.asarray, png_of, palette_png_of):
        arguments: dict[str, Any] = {"artifact_values": [2], "bootstrap": NO_INTERVALS, "protocol": "legion"}
        strict = miou([form(predicted)], [form(truth)], **arguments)
        result = miou([form(predicted)], [form(truth)], ignore_values=[255], **arguments)
        # Quarters: one right, one or two too many, and the last clean.
        assert strict["miou"] == pytest.approx((1 / 3 + 1 / 3) / 2)
        assert result["miou"] == pytest.approx((1 / 2 + 1 / 2) / 2)
        assert result["artifact_values"] == [2] and result["ignore_values"] == [255]
    both = miou([truth], [truth], artifact_values=[2, 5], bootstrap=NO_INTERVALS)
    assert both["miou"] == 1.0


def test_class_numbers_that_contradict_are_named():
    truth = label_map(a=2)
    for options, message in (
        ({"ignore_values": [255]}, "`ignore_values` must come with `artifact_values`"),
        ({"artifact_values": []}, "`artifact_values` must be class numbers, at least one"),
        ({"artifact_values": [1], "ignore_values": [1]}, "none of `ignore_values`"),
    ):
        with pytest.raises(ValueError, match=message):
            miou([truth], [truth], **options)
    with pytest.raises(ValueError, match="must be whole numbers of the shape"):
        miou([truth / 2.0], [truth], artifact_values=[2])


def test_the_module_takes_class_numbers():
    metric = evaluate.load(metric_path("miou"), "masks")
    truth = label_map(artifact=1, ignored=255)
    with pytest.raises(ValueError, match="class numbers"):
        metric.compute(predictions=[truth], references=[truth], n_resamples=0)
    named = {"artifact_values": [1], "ignore_values": [255], "n_resamples": 0}
    assert metric.compute(predictions=[truth], references=[truth], **named)["miou"] == 1.0
