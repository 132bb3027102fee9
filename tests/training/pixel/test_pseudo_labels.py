"""Pseudo labels: verdicts by threshold, interruption and continuation, and training on them."""

from __future__ import annotations

import json
import os
import shutil
from itertools import islice

import numpy as np
import pytest

from datasets_script.benchmarks.loading import load_benchmark
from datasets_script.cli.main import main
from datasets_script.utils.errors import UserError
from tests.helpers.tiny_detectors import red_detector, square
from training.pixel.augment import SHRINK, STRONG, Augmentation
from training.pixel.data import AugmentationPolicy, Mixture
from training.pixel.hard_cases import CONFIDENCES, HardCases
from training.pixel.pseudo_labels import PSEUDO_FILE, PseudoLabels, PseudoLabelSettings
from training.pixel.sources.registry import parse_sources, read_source


BOXES = {
    "cats/1.png": (8, 8, 24, 24),
    "cats/2.png": (36, 4, 56, 20),
    "cats/3.png": (20, 24, 40, 44),
    "skies/1.png": None,
    "skies/2.png": None,
}
SETTINGS = PseudoLabelSettings(low=0.4, high=0.6, shard_size=2)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for seed, (name, box) in enumerate(BOXES.items()):
        (folder / name).parent.mkdir(exist_ok=True)
        square(box, seed).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector") / "red"
    red_detector().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def whole(images, detector, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    verdicts = list(PseudoLabels(images, out, load(detector), SETTINGS).run())
    assert verdicts == ["artifact", "artifact", "artifact", "unreadable", "clean", "clean"]
    return out


def load(folder):
    from datasets_script.detection.pixel.detector import PixelDetector

    return PixelDetector.from_pretrained(folder, device="cpu")


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_labels_are_the_detectors_maps(whole, images, detector):
    found = {image.id: image for image in load_benchmark(whole)}
    assert found.keys() == BOXES.keys()
    network = load(detector)
    for seed, (name, box) in enumerate(BOXES.items()):
        image = found[name]
        assert image.has_artifact is (box is not None)
        assert image.metadata["provenance"] == "pseudo" and image.metadata["category"] == name.partition("/")[0]
        assert image.metadata["detector"] == "red" and image.metadata["round"] == 1
        if box is not None:
            (region,) = image.regions
            assert region.mask is not None
            np.testing.assert_allclose(region.mask, network.maps([square(box, seed)])[0], atol=1e-4)
    record = json.loads((whole / PSEUDO_FILE).read_text())
    assert record["status"] == "complete" and record["counts"] == {"artifact": 3, "clean": 2, "unreadable": 1}
    assert str(images) not in (whole / PSEUDO_FILE).read_text()


def test_what_the_detector_is_not_sure_of_is_left_out_and_listed(images, detector, tmp_path):
    settings = PseudoLabelSettings(low=0.0, high=1.0)
    verdicts = list(PseudoLabels(images, tmp_path / "out", load(detector), settings).run())
    assert set(verdicts) == {"uncertain", "unreadable"} and not (tmp_path / "out" / "data").exists()
    lines = (tmp_path / "out" / CONFIDENCES).read_text().splitlines()
    assert [json.loads(line)["verdict"] for line in lines] == ["uncertain"] * 5


@pytest.mark.parametrize("seen", [1, 3, 5])
def test_interrupted_and_continued_it_ends_with_the_same_files(seen, whole, images, detector, tmp_path):
    out = tmp_path / "out"
    begun = PseudoLabels(images, out, load(detector), SETTINGS).run()
    assert len(list(islice(begun, seen))) == seen
    begun.close()
    # What a killed process may leave.
    (out / "data").mkdir(exist_ok=True)
    (out / "data" / "pseudo-00001.parquet.incomplete").write_bytes(b"half")
    assert json.loads((out / PSEUDO_FILE).read_text())["status"] == "running"
    with pytest.raises(UserError, match="--sources must name complete pseudo labels, got .* interrupted"):
        read_source(parse_sources([f"benchmark={out}"])[0], 0)
    assert len(list(PseudoLabels(images, out, load(detector), SETTINGS).run())) == 6
    (out / "data" / "pseudo-00001.parquet.incomplete").unlink(missing_ok=True)
    assert contents(out) == contents(whole)


def test_a_folder_is_of_one_run(whole, images, detector, tmp_path):
    copy = shutil.copytree(whole, tmp_path / "copy")
    with pytest.raises(UserError, match="OUT must be a new folder or one of the same run, got .* with other settings"):
        PseudoLabels(images, copy, load(detector), PseudoLabelSettings(low=0.1))
    with pytest.raises(UserError, match="OUT must be a new or empty folder"):
        PseudoLabels(images, images, load(detector), SETTINGS)
    with pytest.raises(UserError, match="IMAGES must be a folder with images"):
        PseudoLabels(tmp_path / "none", tmp_path / "new", load(detector), SETTINGS)
    with pytest.raises(UserError, match="--low and --high must be 0 <= low <= high <= 1, got 0.9 and 0.1"):
        PseudoLabelSettings(low=0.9, high=0.1)


def test_an_image_that_changed_is_noticed(images, detector, tmp_path):
    copy, out = shutil.copytree(images, tmp_path / "images"), tmp_path / "out"
    # Reading it would not end.
    os.mkfifo(copy / "pipe.png")
    begun = PseudoLabels(copy, out, load(detector), SETTINGS).run()
    assert next(begun) == "artifact"
    begun.close()
    PseudoLabels(copy, out, load(detector), SETTINGS)
    # Of the last shard, which is not complete.
    square((8, 8, 24, 24), 5).save(copy / "skies" / "2.png")
    with pytest.raises(UserError, match="OUT must be a new folder or one of the same run, got .* with other images"):
        PseudoLabels(copy, out, load(detector), SETTINGS)


def test_they_are_trained_on_with_their_augmentation(whole):
    (source,) = (read_source(spec, 0) for spec in parse_sources([f"benchmark={whole}"]))
    assert len(source.units) == 5 and {p for row in source.units["provenance"][:] for p in row} == {"pseudo"}
    policy = AugmentationPolicy(share=0, shrink_share=1)
    mixture = Mixture([source])
    drawn = mixture.train(5, policy)
    for place in range(5):
        unit = source.units[int(drawn.order[place][1])]
        change = policy.choose(place, unit, drawn[place][0][1])
        assert isinstance(change, Augmentation)
        ranges = STRONG if unit["labels"][0] is not None else SHRINK
        assert ranges.window[0] <= change.window <= ranges.window[1]
    # Padding of augmented images is no share of a label.
    labels = [float(row["labels"][0] is not None and np.mean(row["labels"][0]) / 255) for row in source.units]
    assert mixture.prior() == pytest.approx(np.mean(labels), rel=1e-5)
    cases = HardCases.read(whole)
    assert cases.means.keys() == {"cats", "skies"} and cases.means["cats"] > cases.means["skies"]


def test_the_command(images, detector, whole, tmp_path, capsys):
    options = ["--low", "0.4", "--high", "0.6", "--shard-size", "2", "--device", "cpu"]
    assert main(["pseudo-label", str(images), str(tmp_path / "out"), "--model", str(detector), *options]) == 0
    assert "6 images: 3 artifact, 2 clean, 1 unreadable" in capsys.readouterr().out
    assert contents(tmp_path / "out") == contents(whole)
