"""`artiagent detect` with a pixel detector, and the picture of its answer."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from datasets_script.cli.main import build_parser
from datasets_script.detection.pixel import locating
from datasets_script.figures.detections import detection_picture
from datasets_script.utils.errors import UserError
from evaluate_metrics.functional.regions import heat_map

from ....helpers.tiny_detectors import SIZE, map_of, mask_of, red_detector, regions_of, square


BOX = (10, 10, 30, 26)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector") / "red"
    red_detector().save_pretrained(folder)
    return folder


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    square(BOX, 20).save(folder / "a.png")
    square(None, 21).save(folder / "b.png")
    return folder


def run(*arguments: object) -> int:
    parser = build_parser()
    args = parser.parse_args(["detect", *map(str, arguments)])
    return args.run(args)


def test_lines_overlays_and_maps_are_written(model, photos, tmp_path, capsys):
    out, maps = tmp_path / "out", tmp_path / "maps"
    assert run(photos, "--model", model, "--out", out, "--maps", maps, "--device", "cpu") == 0
    first, second = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = red_detector()(photos / "a.png")
    assert first["has_artifact"] is True and second["has_artifact"] is False and second["regions"] == []
    assert first["score"] == pytest.approx(expected.score, rel=1e-4)
    assert first["regions"][0]["box"] == pytest.approx(regions_of(expected)[0].box, abs=1)
    assert first["measures"].keys() == {"smoothed_maximum", "mean", "share"} and first["explanation"] is None
    assert first["map"] == str(maps / "a.png") and Image.open(first["overlay"]).width >= 640
    stored = heat_map((maps / "a.png").read_bytes())
    np.testing.assert_allclose(stored, map_of(expected), rtol=1e-3, atol=1e-4)


def test_no_map_is_written_unasked(model, photos, tmp_path, capsys):
    run(photos / "a.png", "--model", model, "--out", tmp_path / "out", "--device", "cpu", "--tile", 48)
    assert "map" not in json.loads(capsys.readouterr().out)


def test_the_embedded_detector_is_the_default(model, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(locating, "EMBEDDED_FOLDER", model)
    assert run(photos / "a.png", "--out", tmp_path / "out", "--device", "cpu") == 0
    assert json.loads(capsys.readouterr().out)["has_artifact"] is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ask-all",), "--ask-all must come with a vision-language model, got the pixel detector"),
        (("--coordinates", "pixel"), "--coordinates must come with a vision-language model"),
        (("--quantization", "4bit"), "--quantization must come with a vision-language model"),
        (("--tile", 8), "`tile` must be at least 16, got 8"),
    ],
)
def test_options_of_the_other_kind_are_refused(model, photos, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        run(photos, "--model", model, "--out", tmp_path / "out", *options)


@pytest.mark.parametrize("options", [("--tile", 64), ("--maps", "maps")])
def test_options_of_a_pixel_detector_need_one(photos, tmp_path, options):
    with pytest.raises(UserError, match=f"{options[0]} must come with a pixel detector, got the"):
        run(photos, "--model", "no/such-model", "--out", tmp_path / "out", *options)


def test_the_picture_shows_masks_and_scores(photos):
    image = Image.open(photos / "a.png")
    found = red_detector()(image)
    picture = np.asarray(detection_picture(image, found, "a.png")).astype(int)
    scale = 768 / SIZE[0]
    y, x = np.argwhere(mask_of(regions_of(found)[0])).mean(axis=0)
    plain = np.asarray(image.resize((768, 576), Image.Resampling.LANCZOS)).astype(int)
    place = (round(y * scale), round(x * scale))
    assert np.abs(picture[place] - plain[place]).max() > 20
    assert np.array_equal(picture[570, 700], plain[570, 700])
