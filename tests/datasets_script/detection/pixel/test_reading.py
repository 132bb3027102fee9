"""Regions, measures and scores of maps, and the record that decides them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_script.detection.pixel.locating import PIXEL_FILE
from datasets_script.detection.pixel.reading import find_regions, image_score, measure, read_map
from datasets_script.detection.pixel.record import PixelRecord, RegionThresholds, ScoreCalibration
from datasets_script.utils.errors import ArgumentError, UserError

from ....helpers.tiny_detectors import map_of, mask_of, regions_of


def blank(height=40, width=60):
    return np.zeros((height, width), dtype=np.float32)


def test_a_region_reaches_down_to_the_low_threshold():
    values = blank()
    values[10:20, 10:30] = 0.4
    values[12:14, 12:14] = 0.8
    values[30:36, 40:50] = 0.45
    (region,) = find_regions(values, RegionThresholds(high=0.5, low=0.3))
    assert region.box == (10, 10, 30, 20) and region.score == pytest.approx(0.8) and mask_of(region).sum() == 200
    assert find_regions(values, RegionThresholds(high=0.9, low=0.3)) == ()
    assert [r.box for r in find_regions(values, RegionThresholds(high=0.42, low=0.42))] == [
        (12, 12, 14, 14),
        (40, 30, 50, 36),
    ]


def test_small_regions_are_left_out_and_the_surest_come_first():
    values = blank()
    values[2, 2], values[5:9, 5:9], values[20:24, 20:24] = 1.0, 0.6, 0.9
    found = find_regions(values, RegionThresholds(minimum_area=10 / values.size))
    assert [region.box for region in found] == [(20, 20, 24, 24), (5, 5, 9, 9)]
    assert len(find_regions(values, RegionThresholds(minimum_area=0))) == 3


@given(st.integers(0, 2**32 - 1))
def test_regions_are_the_pixels_above_the_threshold(seed):
    values = np.random.default_rng(seed).random((8, 9)).astype(np.float32)
    found = find_regions(values, RegionThresholds(high=0.6, low=0.6, minimum_area=0))
    together = np.zeros(values.shape, dtype=int)
    for region in found:
        together += mask_of(region)
    assert np.array_equal(together, (values > 0.6).astype(int))
    for region in found:
        x_min, y_min, x_max, y_max = map(int, region.box)
        inside = mask_of(region)[y_min:y_max, x_min:x_max]
        assert inside.sum() == mask_of(region).sum() and inside.any(axis=0).all() and inside.any(axis=1).all()


def test_one_pixel_does_not_make_an_artifact():
    values = blank(64, 64)
    values[5, 5] = 1.0
    lone = measure(values, PixelRecord())
    values[20:30, 20:30] = 0.9
    assert lone.smoothed_maximum < 0.2 < 0.8 < measure(values, PixelRecord()).smoothed_maximum <= 0.9 + 1e-6
    assert measure(values, PixelRecord()).share == 101 / 64**2
    assert measure(values, PixelRecord(calibration=ScoreCalibration(window=0))).smoothed_maximum == 1


def test_the_smoothed_maximum_is_the_highest_mean_of_a_square():
    values = np.random.default_rng(0).random((20, 32))
    record = PixelRecord(calibration=ScoreCalibration(window=4 / 32))
    squares = np.lib.stride_tricks.sliding_window_view(values, (5, 5)).mean(axis=(2, 3))
    found = measure(values, record).smoothed_maximum
    assert found >= squares.max() - 1e-12
    middle = np.zeros_like(values)
    middle[8:13, 8:13] = 1
    assert measure(middle, record).smoothed_maximum == pytest.approx(1)


def test_the_score_is_calibrated():
    plain, steep = ScoreCalibration(), ScoreCalibration(slope=2.0, offset=-1.0)
    assert image_score(0.3, plain) == pytest.approx(0.3) and image_score(1.0, plain) == pytest.approx(1, abs=1e-5)
    odds = 0.8 / 0.2
    assert image_score(0.8, steep) == pytest.approx(odds**2 * np.exp(-1) / (1 + odds**2 * np.exp(-1)))
    assert image_score(0.5, ScoreCalibration(slope=1.0, offset=-2000.0)) == 0


def test_a_detection_holds_together():
    values = blank()
    values[10:20, 10:30] = 0.9
    record = PixelRecord()
    found = read_map(values, record)
    assert found.has_artifact is True and found.size == (60, 40) and len(regions_of(found)) == 1
    assert found.explanation is None and np.array_equal(map_of(found), values)
    clean = read_map(values, replace(record, calibration=ScoreCalibration(threshold=0.95)))
    assert clean.has_artifact is False and clean.regions == () and clean.score == found.score
    content = json.loads(json.dumps(found.to_dict()))
    assert content["score"] == found.score and content["measures"]["share"] == 200 / 2400
    assert content["regions"] == [{"box": [10, 10, 30, 20], "label": "", "score": pytest.approx(0.9)}]


def test_the_record_is_stored_whole(tmp_path):
    record = PixelRecord(
        thresholds=RegionThresholds(0.6, 0.2, 0.01),
        calibration=ScoreCalibration(2.0, -0.5, 0.1, 0.4),
        trunk="swin_tiny",
        license="mit",
    )
    record.write(tmp_path)
    assert PixelRecord.read(tmp_path / PIXEL_FILE) == record and "timm" in record.versions


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("trunk"), "must be of format 1 with preprocessing, "),
        (lambda content: content.update(format=2), "must be of format 1"),
        (lambda content: content["thresholds"].update(low=0.9), "`low` and `high` must be 0 <= low <= high < 1"),
        (lambda content: content["calibration"].update(gain=1), "holds a value that cannot be used: .*gain"),
        (lambda content: content["preprocessing"].pop("side"), "`preprocessing` must have the fields"),
        (lambda content: content.update(thresholds=3), "holds a value that cannot be used"),
    ],
)
def test_a_broken_record_is_told(tmp_path, change, message):
    content = PixelRecord().to_dict()
    change(content)
    (tmp_path / PIXEL_FILE).write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        PixelRecord.read(tmp_path / PIXEL_FILE)


def test_a_record_that_is_no_json_is_told(tmp_path):
    (tmp_path / PIXEL_FILE).write_text("{")
    with pytest.raises(UserError, match="must be JSON that can be read"):
        PixelRecord.read(tmp_path / PIXEL_FILE)


@pytest.mark.parametrize("values", [{"slope": 0.0}, {"slope": -1.0}, {"offset": np.inf}, {"window": 1.0}])
def test_a_calibration_out_of_range_is_refused(values):
    with pytest.raises(ArgumentError, match=f"`{next(iter(values))}`"):
        ScoreCalibration(**values)
