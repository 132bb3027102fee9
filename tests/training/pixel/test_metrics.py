"""Scores during training, against scikit-learn and against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from transformers import EvalPrediction

from training.pixel.metrics import LEVELS, PixelMetrics


def made(images=6, size=16, seed=0):
    """Make noisy maps and labels with padding; every second image is clean."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(images, size, size)
    labels[::2, 2:9, 3:8] = 1
    logits = 2 * labels - 1 + 2 * torch.randn(images, size, size, generator=generator)
    labels[:, :, -2:] = -1
    return logits, labels


def test_scores_are_those_of_the_definition():
    logits, labels = made()
    metrics = PixelMetrics()
    metrics(EvalPrediction(logits[:4], labels[:4]), compute_result=False)
    scores = metrics(EvalPrediction(logits[4:], labels[4:]))
    counts, probabilities = labels >= 0, logits.sigmoid()
    levels = (probabilities * (LEVELS - 1)).round()
    assert scores["pixel_auc"] == pytest.approx(roc_auc_score(labels[counts] == 1, levels[counts]), abs=1e-9)
    ious, frequency, areas = [], [], []
    for probability, label in zip(probabilities, labels, strict=True):
        predicted, true = (probability > 0.5) & (label >= 0), label == 1
        if true.any():
            ious.append(float((predicted & true).sum() / (predicted | true).sum()))
        else:
            frequency.append(bool(predicted.any()))
            areas.append(float(predicted.sum() / (label >= 0).sum()))
    assert scores["pixel_iou"] == pytest.approx(np.mean(ious))
    assert scores["clean_frequency"] == np.mean(frequency)
    assert scores["clean_area"] == pytest.approx(np.mean(areas))
    assert scores["pixel_recall"] == pytest.approx(float((probabilities > 0.5)[labels == 1].float().mean()), abs=0.02)


def test_each_evaluation_begins_anew():
    metrics = PixelMetrics()
    first = metrics(EvalPrediction(*made()))
    assert metrics(EvalPrediction(*made())) == first


def test_what_cannot_be_scored_is_left_out():
    logits, labels = made()
    assert PixelMetrics()(EvalPrediction(logits[1::2], labels[1::2])).keys() == {"clean_frequency", "clean_area"}
    assert PixelMetrics()(EvalPrediction(logits[::2], labels[::2])).keys() == {
        "pixel_iou",
        "pixel_recall",
        "pixel_auc",
    }


def test_single_pixels_do_not_decide_the_score_of_an_image():
    labels = torch.zeros(2, 128, 128)
    labels[0, 32:96, 32:96] = 1
    logits = torch.full((2, 128, 128), -6.0)
    logits[0, 32:96, 32:96] = 1.0
    logits[1, 5, 5] = 9.0
    assert PixelMetrics()(EvalPrediction(logits, labels))["image_auc"] == 1
