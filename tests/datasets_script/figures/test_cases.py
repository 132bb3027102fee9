"""The images of an evaluation."""

from __future__ import annotations

import doctest
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets_script.figures import cases
from datasets_script.figures.cases import Case, case_sheet, reliability_of_boxes, success_curve, type_bars


TRUTH, PREDICTION = (0, 114, 178), (213, 94, 0)


def make_case(size: tuple[int, int] = (80, 80), text: str = "An ear too many.", **changes: Any) -> Case:
    truth, prediction = np.zeros((2, size[1], size[0]), dtype=bool)
    truth[10:30, 10:30] = True
    prediction[50:70, 50:70] = True
    image = Image.new("RGB", size, (240, 240, 240))
    return replace(Case("a.png", image, truth, prediction, 0.0, "An extra ear.", text), **changes)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=int)


def differ(first: Image.Image, second: Image.Image) -> bool:
    return first.size != second.size or bool((pixels(first) != pixels(second)).any())


class TestCaseSheet:
    def test_regions_are_where_they_are(self):
        # The marked tile of the first card is 380 px wide and begins at (28 + 388, 102).
        tile = pixels(case_sheet([make_case()], "worst of 1")).astype(int)[102:482, 416:796]
        center, scale = (np.array([tile[row, row] for row in (95, 285, 200)]), 380 / 80)
        assert center[0][2] > center[0][0]  # blue within the true region
        assert center[1][0] > center[1][2]  # orange within the predicted one
        assert (center[2] == 240).all()
        edge = int(10 * scale) + 1
        assert tuple(tile[edge + 20, edge]) == TRUTH
        assert (tile[:20] == 240).all()

    def test_the_picture_itself_stands_beside_it_unmarked(self):
        tile = pixels(case_sheet([make_case()], "worst of 1"))[102:482, 28:408]
        assert (tile == 240).all()

    def test_a_region_that_fills_the_image_has_an_outline(self):
        everything = make_case(prediction=np.ones((80, 80), dtype=bool))
        tile = pixels(case_sheet([everything], "worst of 1"))[102:482, 416:796]
        assert tuple(tile[0, 200]) == tuple(tile[379, 200]) == PREDICTION

    def test_two_stand_beside_each_other_and_the_rest_below(self):
        one, two, three = (case_sheet([make_case()] * count, "cases") for count in (1, 2, 3))
        assert two.width > one.width and two.height == one.height
        assert three.width == two.width and three.height > two.height

    def test_long_texts_are_wrapped_and_cut_and_texts_without_spaces_broken(self):
        short, long, endless, chinese = (
            case_sheet([make_case(text=text)], "cases")
            for text in ("short", "word " * 60, "word " * 2000, "多了一只耳朵" * 40)
        )
        assert short.width == long.width == endless.width == chinese.width
        assert short.height < long.height < endless.height < long.height + 200
        assert short.height < chinese.height
        for sheet in (long, endless, chinese):
            assert (pixels(sheet)[:, -20:] == 255).all()

    def test_other_content_is_another_picture(self):
        plain = case_sheet([make_case()], "cases")
        assert not differ(plain, case_sheet([make_case()], "cases"))
        assert differ(plain, case_sheet([make_case(iou=0.5)], "cases"))
        assert differ(plain, case_sheet([make_case(text="Another.")], "cases"))
        assert differ(plain, case_sheet([make_case()], "other cases"))

    def test_upright_and_wide_images_keep_their_shape(self):
        wide, upright = (case_sheet([make_case(size)], "cases") for size in ((160, 80), (80, 160)))
        assert wide.height < upright.height

    def test_mistakes(self):
        with pytest.raises(ValueError, match="`cases` must hold at least one"):
            case_sheet([], "cases")
        with pytest.raises(ValueError, match=r"`prediction` of case 'a.png' must have the shape \(80, 80\), got \(8"):
            case_sheet([make_case(prediction=np.ones((8, 8), dtype=bool))], "cases")


class TestReliabilityOfBoxes:
    def test_the_area_under_the_curve_is_the_mean(self):
        ious = np.random.default_rng(0).beta(0.5, 2, 50)
        thresholds, shares = success_curve(ious)
        assert (np.diff(thresholds) * shares[:-1]).sum() == pytest.approx(ious.mean())
        # Just after each threshold the curve is the share of greater IoUs.
        for threshold, share in zip(thresholds[1:], shares[1:], strict=True):
            assert share == pytest.approx((ious > threshold).mean())

    def test_perfect_and_missing_boxes(self):
        assert success_curve([1.0])[1].tolist() == [1.0, 0.0, 0.0]
        assert success_curve([0.0])[1].tolist() == [1.0, 0.0, 0.0]

    def test_shows_the_data_protocol_and_sizes(self):
        ious = [0.0, 0.2, 0.9]
        plain = reliability_of_boxes(ious)
        assert differ(plain, reliability_of_boxes([0.0, 0.2, 0.8]))
        by_size = reliability_of_boxes(ious, [0.005, 0.05, 1.0])
        assert by_size.width > plain.width
        assert differ(by_size, reliability_of_boxes(ious, [0.05, 0.05, 1.0]))

    def test_mistakes(self):
        with pytest.raises(ValueError, match="`ious` must hold at least one IoU"):
            reliability_of_boxes([])
        with pytest.raises(ValueError, match="`true_shares` must have the length of `ious`, 2, got 1"):
            reliability_of_boxes([0.1, 0.2], [0.5])


class TestTypeBars:
    RECALL = {"duplication": 0.6, "omission": 0.4}
    INTERVALS = {"duplication": [0.5, 0.7], "omission": None}

    def test_recall_intervals_ious_and_counts_are_seen(self):
        ious = {"duplication": [0.1, 0.4, 0.5]}
        plain = type_bars(self.RECALL, self.INTERVALS, ious)
        assert differ(plain, type_bars(self.RECALL | {"omission": 0.5}, self.INTERVALS, ious))
        assert differ(plain, type_bars(self.RECALL, self.INTERVALS | {"duplication": [0.4, 0.7]}, ious))
        assert differ(plain, type_bars(self.RECALL, self.INTERVALS, ious | {"omission": [0.2]}))
        assert differ(plain, type_bars(self.RECALL, self.INTERVALS, ious, {"duplication": 3, "omission": 8}))

    def test_more_types_take_more_height(self):
        thirteen = {f"type {number}": 0.5 for number in range(13)}
        assert type_bars(thirteen, {}, {}).height > 2 * type_bars(self.RECALL, {}, {}).height

    def test_needs_a_type(self):
        with pytest.raises(ValueError, match="`recall_by_type` must hold at least one type"):
            type_bars({}, {}, {})


def test_examples_of_the_docstrings():
    result = doctest.testmod(cases)
    assert result.attempted and not result.failed
