"""The detector: images to detections, loading and saving, gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from datasets_script import PixelDetector
from datasets_script.detection.pixel import locating
from datasets_script.detection.pixel.locating import PIXEL_FILE, is_pixel_detector
from datasets_script.detection.pixel.preprocessing import Preprocessing
from datasets_script.utils.errors import ArgumentError, UserError
from datasets_script.utils.photos import SourceError

from ....helpers.tiny_detectors import SIZE, map_of, red_detector, regions_of, square, tiny_network, tiny_record


BOX = (10, 10, 30, 26)


@pytest.fixture(scope="module")
def detector():
    return red_detector()


@pytest.fixture(scope="module")
def folder(detector, tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector") / "red"
    detector.save_pretrained(folder)
    return folder


def overlap(box, other):
    width, height = (max(0, min(box[i + 2], other[i + 2]) - max(box[i], other[i])) for i in (0, 1))
    area = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return width * height / (area - width * height)


class TestDetection:
    def test_what_it_learned_is_found_in_other_images(self, detector):
        found, clean = detector([square(BOX, 100), square(None, 101)])
        assert found.has_artifact is True and found.size == SIZE and map_of(found).shape == SIZE[::-1]
        assert map_of(found).dtype == np.float32 and overlap(regions_of(found)[0].box, BOX) > 0.4
        assert found.score > 0.9 > 0.1 > clean.score and clean.has_artifact is False and clean.regions == ()

    def test_a_batch_of_any_sizes_gives_what_single_images_give(self, detector):
        images = [square(BOX, 1), square(BOX, 2, (50, 80)), square(None, 3), square(BOX, 4, (31, 33))]
        together = detector(images)
        for image, found in zip(images, together, strict=True):
            np.testing.assert_allclose(map_of(found), map_of(detector(image)), rtol=1e-3, atol=1e-4)
        assert [found.size for found in together] == [image.size for image in images]

    def test_an_iterable_is_read_a_batch_at_a_time(self, detector):
        opened = []

        def images():
            for number in range(3):
                opened.append(number)
                yield square(BOX, number)

        stream = red_detector(batch_size=2).stream(images())
        assert next(stream).has_artifact and opened == [0, 1]
        assert len(list(stream)) == 2

    def test_files_are_turned_upright_and_bad_ones_named(self, detector, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        square(BOX, 5).save(tmp_path / "turned.png", exif=exif)
        assert detector(tmp_path / "turned.png").size == SIZE[::-1]
        with pytest.raises(SourceError, match="missing.png: cannot be read"):
            detector(str(tmp_path / "missing.png"))

    def test_small_artifacts_of_large_images_are_seen_in_tiles(self, detector):
        image = square((200, 100, 216, 116), 6, (640, 320))
        assert detector(image).has_artifact is False
        # Tiles have the size that it was trained at.
        found = red_detector(tile=64)(image)
        assert found.has_artifact is True and overlap(regions_of(found)[0].box, (200, 100, 216, 116)) > 0.3
        small = square(BOX, 7)
        assert red_detector(tile=64)(small).score == detector(small).score

    def test_bounds_are_checked(self):
        with pytest.raises(ArgumentError, match="`batch_size` must be at least 1, got 0"):
            red_detector(batch_size=0)
        with pytest.raises(ArgumentError, match="`tile` must be at least 16, got 8"):
            red_detector(tile=8)


class TestGradient:
    @pytest.mark.parametrize("trunk", ["convnext_tiny", "mit_b0", "efficientnet_lite0"])
    def test_it_is_that_of_finite_differences(self, trunk):
        detector = PixelDetector(tiny_network(trunk).double(), tiny_record(preprocessing=Preprocessing(length=32)))
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(1, 3, 24, 40, generator=generator, dtype=torch.float64, requires_grad=True)
        weights = torch.rand(1, 24, 40, generator=generator, dtype=torch.float64)
        (gradient,) = torch.autograd.grad((detector.artifact_map(images) * weights).sum(), images)
        direction = torch.randn(images.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            near = [(detector.artifact_map(images + sign * 1e-4 * direction) * weights).sum() for sign in (1, -1)]
        expected, found = (near[0] - near[1]) / 2e-4, (gradient * direction).sum()
        assert abs(expected) > 1e-12
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)

    def test_the_network_stays_as_it_is(self, detector):
        before = {name: value.clone() for name, value in detector.network.state_dict().items()}
        images = torch.rand(2, 3, 48, 64, requires_grad=True)
        (gradient,) = torch.autograd.grad(detector.artifact_map(images).mean(), images)
        assert gradient.abs().sum() > 0 and not detector.network.training
        assert not any(weight.requires_grad for weight in detector.network.parameters())
        assert all(torch.equal(value, before[name]) for name, value in detector.network.state_dict().items())

    def test_descending_it_silences_the_detector(self, detector):
        images = torch.from_numpy(np.array(square(BOX, 8))).permute(2, 0, 1)[None] / 255
        before = detector.artifact_map(images).mean()
        for _ in range(10):
            images.requires_grad_(True)
            (gradient,) = torch.autograd.grad(detector.artifact_map(images).mean(), images)
            images = (images - 0.02 * gradient.sign()).clamp(0, 1).detach()
        assert detector.artifact_map(images).mean() < before / 2

    def test_half_precision_gives_float32_maps(self, detector):
        half = PixelDetector(tiny_network().bfloat16(), tiny_record())
        found = map_of(half(square(BOX, 9)))
        whole = map_of(PixelDetector(tiny_network(), tiny_record())(square(BOX, 9)))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, whole, rtol=1e-2, atol=1e-2)


class TestFiles:
    def test_a_saved_detector_is_the_same(self, detector, folder):
        loaded = PixelDetector.from_pretrained(folder, device="cpu")
        assert loaded.record == detector.record and {path.name for path in folder.iterdir()} == {
            "config.json",
            "model.safetensors",
            PIXEL_FILE,
        }
        image = square(BOX, 10)
        np.testing.assert_allclose(map_of(loaded(image)), map_of(detector(image)), rtol=1e-4, atol=1e-5)
        assert loaded.identity()["revision"].startswith("sha256:") and loaded.identity()["model"] == folder.name

    def test_weights_may_be_stored_smaller(self, detector, tmp_path):
        detector.save_pretrained(tmp_path, dtype=torch.bfloat16)
        assert detector.network.dtype == torch.float32
        loaded = PixelDetector.from_pretrained(tmp_path, device="cpu")
        assert loaded.network.dtype == torch.float32
        image = square(BOX, 11)
        np.testing.assert_allclose(map_of(loaded(image)), map_of(detector(image)), rtol=0, atol=0.05)

    def test_a_stock_network_needs_its_preprocessing(self, detector, tmp_path):
        detector.network.save_pretrained(tmp_path)
        with pytest.raises(ArgumentError, match=f"`preprocessing` must be given for a network without {PIXEL_FILE}"):
            PixelDetector.from_pretrained(tmp_path)
        loaded = PixelDetector.from_pretrained(tmp_path, preprocessing=detector.record.preprocessing, device="cpu")
        image = square(BOX, 12)
        assert loaded(image).score == pytest.approx(detector(image).score, rel=1e-4)
        assert not is_pixel_detector(str(tmp_path)) and loaded.record.trunk is None

    def test_another_preprocessing_takes_the_recorded_ones_place(self, folder):
        larger = replace(tiny_record().preprocessing, length=128)
        loaded = PixelDetector.from_pretrained(folder, preprocessing=larger, device="cpu")
        assert loaded.record.preprocessing.length == 128 == loaded.identity()["preprocessing"]["length"]

    def test_the_embedded_detector_is_found_in_the_package(self, folder, monkeypatch, tmp_path):
        monkeypatch.setattr(locating, "EMBEDDED_FOLDER", tmp_path / "embedded")
        with pytest.raises(ArgumentError, match="`model` 'embedded' must be part of this installation, found no"):
            PixelDetector.from_pretrained("embedded")
        monkeypatch.setattr(locating, "EMBEDDED_FOLDER", folder)
        assert is_pixel_detector("embedded")
        assert PixelDetector.from_pretrained("embedded", device="cpu").name == "embedded"

    @pytest.mark.parametrize("name", ["no/such-model", "nowhere at all"])
    def test_what_is_not_there_is_told(self, name):
        assert not is_pixel_detector(name)
        with pytest.raises(ArgumentError, match=f"must be a folder or a repository on the Hub .* got '{name}'"):
            PixelDetector.from_pretrained(name)

    def test_a_damaged_record_is_told(self, folder, tmp_path):
        for path in folder.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / PIXEL_FILE).write_text("{}")
        with pytest.raises(UserError, match="must be of format 1"):
            PixelDetector.from_pretrained(tmp_path)
