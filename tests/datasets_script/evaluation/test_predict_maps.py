"""A pixel detector on a benchmark: its files, and its scores under every protocol."""

from __future__ import annotations

import io
import json
import shutil
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from datasets_script.cli.main import build_parser
from datasets_script.evaluation.predict_maps import predict_maps
from datasets_script.evaluation.prediction_files import read_predictions
from datasets_script.schema.image import BenchmarkImage, Region
from datasets_script.utils.errors import UserError
from evaluate_metrics.functional.regions import heat_map

from ...helpers.made_benchmarks import write_benchmark
from ...helpers.tiny_detectors import SIZE, map_of, mask_of, red_detector, regions_of, square


BOXES: tuple[tuple[int, int, int, int] | None, ...] = ((10, 10, 30, 26), None, (30, 20, 50, 40), None)
SIZES = {f"some/{number}.png": SIZE for number in range(len(BOXES))}


@pytest.fixture(scope="module")
def images() -> list[BenchmarkImage]:
    made = []
    for number, box in enumerate(BOXES):
        buffer = io.BytesIO()
        square(box, 40 + number).save(buffer, format="PNG")
        regions = () if box is None else (Region("box", box, name="Red"),)
        made.append(BenchmarkImage(f"some/{number}.png", buffer.getvalue(), SIZE, box is not None, regions))
    return made


@pytest.fixture(scope="module")
def folder(images, tmp_path_factory):
    return write_benchmark(tmp_path_factory.mktemp("benchmark") / "mine", images)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector") / "red"
    red_detector().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def predicted(model, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("predictions") / "red.jsonl"
    assert run("predict", model, "--benchmark", folder, "--out", out, "--device", "cpu") == 0
    return out


def run(*arguments: object) -> int:
    parser = build_parser()
    args = parser.parse_args([*map(str, arguments)])
    return args.run(args)


def scores(predicted, folder, tmp_path, *options):
    out = tmp_path / "report.md"
    run("evaluate", predicted, "--benchmark", folder, "--out", out, "--css-model", "none", *options)
    return json.loads(out.with_suffix(".json").read_text())["scores"]


def test_regions_masks_and_maps_are_on_disk(predicted, images):
    file = read_predictions(predicted, SIZES)
    assert file.model.endswith("red") and not file.missing and file.header["model"]["thresholds"]["high"] == 0.5
    for image, box in zip(images, BOXES, strict=True):
        found = file.predictions[image.id]
        expected = red_detector()(Image.open(io.BytesIO(image.image)))
        assert found.has_artifact is (box is not None) is expected.has_artifact
        assert found.boxes is not None and len(found.boxes) == len(regions_of(expected))
        assert found.artifact_map is not None and found.mask is not None
        values = heat_map(found.artifact_map.read_bytes(), masks=False)
        np.testing.assert_allclose(values, map_of(expected), rtol=1e-3, atol=1e-4)
        mask = np.zeros(values.shape, dtype=bool)
        for region in regions_of(expected):
            mask |= mask_of(region)
        assert np.array_equal(heat_map(found.mask.read_bytes()) > 0.5, mask)


def test_an_interrupted_command_continues(images, tmp_path):
    out = tmp_path / "red.jsonl"
    first = islice(predict_maps(red_detector(batch_size=1), iter(images), "mine", None, out), 1)
    assert [prediction.id for prediction in first] == [images[0].id]
    del first
    rest = list(predict_maps(red_detector(batch_size=1), iter(images), "mine", None, out))
    assert [prediction.id for prediction in rest] == [image.id for image in images[1:]]
    file = read_predictions(out, SIZES)
    assert file.predictions == {**file.predictions, **{prediction.id: prediction for prediction in rest}}
    with pytest.raises(UserError, match="was written with other settings .*tile"):
        next(predict_maps(red_detector(tile=32), iter(images), "mine", None, out))


@pytest.mark.parametrize("protocol", ["artiagent", "legion", "menn", "x_aigd", "viescore2"])
def test_every_protocol_scores_it(predicted, folder, tmp_path, protocol):
    found = scores(predicted, folder, tmp_path, "--protocol", protocol)
    assert found["detection"]["accuracy"] == found["ranking"]["auroc"] == 1
    assert found["localization"]["protocol"] == protocol and 0.4 < found["localization"]["miou"] < 1
    assert ("instances" in found) is (protocol == "x_aigd")
    assert found["artifact_map"]["n"] == 4 and 0 < found["artifact_map"]["mse"] < 0.1
    assert found["artifact_map"]["artifact_frequency"] == 0.5


def test_a_grid_may_ask_for_more_of_a_cell(predicted, folder, tmp_path):
    any_pixel, half = (
        scores(predicted, folder, tmp_path, "--protocol", "viescore2", *options)["localization"]
        for options in ((), ("--cell-share", "0.5"))
    )
    assert (any_pixel["cell_share"], half["cell_share"]) == (0.0, 0.5) and any_pixel["miou"] != half["miou"]
    with pytest.raises(UserError, match="--cell-share must come with --protocol viescore2, got the protocol menn"):
        scores(predicted, folder, tmp_path, "--protocol", "menn", "--cell-share", "0.5")


def test_maps_are_scored_only_if_every_image_has_one(predicted, folder, tmp_path):
    lines = [json.loads(line) for line in predicted.read_text().splitlines()]
    lines[-1].pop("artifact_map")
    shutil.copytree(predicted.parent / "red_maps", tmp_path / "red_maps")
    (tmp_path / "red.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = scores(tmp_path / "red.jsonl", folder, tmp_path)
    assert "artifact_map" not in found and found["localization"]["miou"] > 0.4


def test_questions_are_for_language_models(model, folder, tmp_path):
    with pytest.raises(UserError, match="--tasks must come with a vision-language model, got the pixel detector"):
        run("predict", model, "--benchmark", folder, "--out", tmp_path / "out.jsonl", "--tasks", "detection")
