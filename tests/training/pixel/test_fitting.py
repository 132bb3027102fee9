"""Thresholds and calibration fitted on held-out images."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from datasets_script.detection.pixel.reading import image_score
from tests.helpers.tiny_detectors import red_detector, square
from training.pixel.data import TrainingUnits
from training.pixel.fitting import fit_detector, platt


class Units:
    """Held-out units: red squares, and images without."""

    boxes = ((8, 8, 24, 24), None, (36, 4, 56, 20), None, (20, 24, 40, 44), None)

    def __len__(self):
        return len(self.boxes)

    def __getitem__(self, place):
        import torch

        box = self.boxes[place]
        image = torch.from_numpy(np.array(square(box, place))).permute(2, 0, 1)
        label = torch.zeros(image.shape[1:])
        if box is not None:
            label[box[1] : box[3], box[0] : box[2]] = 1
        return [(image, label)]


def test_platt_scaling_is_logistic_regression_on_many_images():
    rng = np.random.default_rng(0)
    labels = rng.random(4000) < 0.4
    values = rng.normal(2.0 * labels - 1, 1.5)
    expected = LogisticRegression(C=1e6).fit(values[:, None], labels)
    slope, offset = platt(values, labels)
    assert slope == pytest.approx(float(expected.coef_[0, 0]), rel=0.01)
    assert offset == pytest.approx(float(expected.intercept_[0]), abs=0.02)


def test_separable_scores_stay_finite():
    slope, offset = platt(np.array([-3.0, -2.0, 2.0, 3.0]), np.array([False, False, True, True]))
    assert 0 < slope < 5 and abs(offset) < 1


def test_a_detector_is_fitted():
    detector = red_detector()
    record, scores = fit_detector(detector, cast(TrainingUnits, Units()), false_alarms=0.1)
    assert scores["recall"] == 1 and scores["false_alarms"] == 0 and scores["pixel_iou"] > 0.5
    assert scores["is_calibrated"] is True
    assert record.preprocessing == detector.record.preprocessing
    assert 0.5 <= record.calibration.threshold < 1
    fitted = replace(record.calibration)
    raw = [detector.raw_score(detector.maps([square(box, place)])[0]) for place, box in enumerate(Units.boxes)]
    probabilities = [image_score(value, fitted) for value in raw]
    assert min(probabilities[::2]) > record.calibration.threshold > max(probabilities[1::2])


def test_the_threshold_allows_few_false_alarms():
    """A detector whose images all look alike must not call more than a share of the clean ones flawed."""
    detector = red_detector()

    class Mistaken(Units):
        # The labels are wrong: clean images have squares, artifact images have small or none.
        def __getitem__(self, place):
            ((image, label),) = super().__getitem__(place)
            return [(image, 1 - label if place == 1 else label * 0)]

    record, scores = fit_detector(detector, cast(TrainingUnits, Mistaken()), false_alarms=0.1)
    assert scores["false_alarms"] == 0 and record.calibration.threshold >= 0.5
    assert scores["is_calibrated"] is False
