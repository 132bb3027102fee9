"""What a pixel detector says of artifacts is recorded in their scores, and rejects none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from datasets_script.agents.curation.curator import Curator
from datasets_script.agents.curation.perceptual import load_perceptual_metric
from datasets_script.agents.curation.second_opinion import with_second_opinion
from datasets_script.agents.curation.thresholds import CurationSettings, Verdict
from datasets_script.agents.curation.variant import Variant
from datasets_script.schema.pair import Artifact
from diffusers_artifact.mapping import PatchMapping
from diffusers_artifact.tools import bbox_of_mask

from ...helpers.tiny_detectors import red_detector, square


SIDE, PATCH = 64, 16
RED, GREY = (16, 16, 32, 32), (48, 32, 64, 48)
ADDED = {"detector_inside", "detector_clean", "detector_has_artifact"}


def artifact(box):
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    target = box[1] // PATCH * (SIDE // PATCH) + box[0] // PATCH
    mapping = PatchMapping.from_pairs([(target, 0)], (SIDE // PATCH, SIDE // PATCH), "omission")
    return Artifact("omission", "remove", "cat", "ear", "", mapping, mask, bbox_of_mask(mask), mask)


@pytest.fixture(scope="module")
def variant():
    """A red square, which the detector has learned to see, and a grey one, which it has not."""
    clean = square(None, 30, (SIDE, SIDE))
    pixels = np.array(square(RED, 30, (SIDE, SIDE)))
    pixels[GREY[1] : GREY[3], GREY[0] : GREY[2]] = 200
    return Variant(0, "a cat", clean, Image.fromarray(pixels), (artifact(RED), artifact(GREY)))


def test_what_it_does_not_see_is_flagged_and_kept(variant):
    verdicts = [[Verdict(True, "visible", one) for one in variant.artifacts]]
    ((red, grey),) = with_second_opinion([variant], verdicts, red_detector())
    assert red.kept and grey.kept and red.reason == grey.reason == "visible"
    seen, unseen = red.artifact.scores, grey.artifact.scores
    assert seen["detector_has_artifact"] == 1 and seen["detector_inside"] > 0.9 > 0.1 > seen["detector_clean"]
    assert unseen["detector_has_artifact"] == 0 and unseen["detector_inside"] < 0.5
    assert json.loads(json.dumps(seen)) == seen


def test_it_is_not_asked_about_what_is_rejected(variant):
    rejected = [Verdict(False, "hidden", one) for one in variant.artifacts]
    assert with_second_opinion([variant], [rejected], red_detector()) == [rejected]
    kept = [Verdict(True, "visible", variant.artifacts[0]), rejected[1]]
    ((first, second),) = with_second_opinion([variant], [kept], red_detector())
    assert first.artifact.scores.keys() == ADDED and second is rejected[1]


def test_a_curator_asks_it_after_its_own_measures(variant):
    metric = load_perceptual_metric("stlpips")
    detector = red_detector(name="red")
    alone, both = (Curator(CurationSettings(), metric, detector=one).judge([variant])[0] for one in (None, detector))
    assert [verdict.kept for verdict in both] == [verdict.kept for verdict in alone] and both[0].kept
    for verdict, without in zip(both, alone, strict=True):
        assert verdict.artifact.scores.keys() == without.artifact.scores.keys() | (ADDED if verdict.kept else set())
    identity, plain = (Curator(CurationSettings(), metric, detector=one).identity() for one in (detector, None))
    assert identity["detector"]["model"] == "red" and plain["detector"] is None
    assert json.loads(json.dumps(identity)) == identity
