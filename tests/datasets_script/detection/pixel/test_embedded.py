"""The detector in the package: its size, its record, and what it sees in a photo before and after a part is torn."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from skimage import data

from datasets_script.detection.pixel.detector import PixelDetector
from datasets_script.detection.pixel.locating import EMBEDDED_FOLDER
from datasets_script.schema.training_record import TrainingRecord


SIDE, TORN = 256, slice(96, 160)


@pytest.fixture(scope="module")
def detector() -> PixelDetector:
    return PixelDetector.from_pretrained("embedded", device="cpu")


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(data.astronaut()[:300, :300]).resize((SIDE, SIDE))


def torn(photo: Image.Image) -> Image.Image:
    """Return the photo with 8×8 tiles of its middle in random order."""
    pixels = np.array(photo)
    tiles = pixels[TORN, TORN].reshape(8, 8, 8, 8, 3).swapaxes(1, 2).reshape(64, 8, 8, 3)
    shuffled = tiles[np.random.default_rng(0).permutation(64)].reshape(8, 8, 8, 8, 3).swapaxes(1, 2)
    pixels[TORN, TORN] = shuffled.reshape(64, 64, 3)
    return Image.fromarray(pixels)


def test_it_finds_a_torn_part_and_nothing_in_the_photo(detector, photo):
    before, after = detector([photo, torn(photo)])
    assert before.has_artifact is False and before.score < 0.5
    assert after.has_artifact is True and after.score > 0.6
    true = np.zeros((SIDE, SIDE), dtype=bool)
    true[TORN, TORN] = True
    found = after.artifact_map > detector.record.thresholds.high
    assert (found & true).sum() / (found | true).sum() > 0.4


def test_it_is_small_and_says_what_it_was_trained_on():
    assert sum(path.stat().st_size for path in EMBEDDED_FOLDER.iterdir()) <= 8 * 2**20
    record = TrainingRecord.read(EMBEDDED_FOLDER)
    assert record.data["pairs"]["train"] > 0 and record.data["trunk_license"] == "apache-2.0"
    assert not any("/" in source["source"] for source in record.data["sources"])
