"""The tab Detect, through the app that is served: what was found, the mask as it is and edited, and the decision."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle


pytest.importorskip("gradio", reason="the extra `app` is not installed")

from gradio_client import Client, handle_file  # noqa: E402
from gradio_client.exceptions import AppError  # noqa: E402

from datasets_script.app.decision import Examined  # noqa: E402
from datasets_script.app.detect_tab import BRUSH  # noqa: E402
from datasets_script.app.main import AppSettings, launch  # noqa: E402
from datasets_script.app.painted import painting  # noqa: E402
from datasets_script.demo.photos import open_demo_photo  # noqa: E402
from datasets_script.detection.pixel.detector import PixelDetector  # noqa: E402
from datasets_script.schema.detection import DetectedRegion, Detection  # noqa: E402

from ...helpers.tiny_detectors import red_detector, square  # noqa: E402


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    settings = AppSettings(tmp_path_factory.mktemp("app") / "kept", model="", device="cpu")
    app, url = launch(settings, block=False)
    yield Client(url, verbose=False)
    app.close()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Image.Image]:
    path = tmp_path_factory.mktemp("images") / "cat.png"
    photo = open_demo_photo("cat.png").resize((200, 160))
    # A copied patch, which the embedded detector may or may not see.
    photo.paste(photo.crop((40, 40, 90, 90)), (100, 40))
    photo.save(path)
    return path, photo


def painted(layers: list[str]) -> dict[str, Any]:
    return {"background": None, "layers": [handle_file(layer) for layer in layers], "composite": None}


def decoded(decision: dict[str, Any]) -> np.ndarray:
    mask = decision["mask"]
    return rle.decode({"size": mask["size"], "counts": mask["counts"].encode()}).astype(bool)


def test_a_detection_is_looked_at_edited_and_decided_on(
    client: Client, image: tuple[Path, Image.Image], tmp_path: Path
) -> None:
    path, photo = image
    with pytest.raises(AppError, match="Upload an image first"):
        client.predict(painted([]), api_name="/decide")
    status, overlay, editor, details, *_ = client.predict(handle_file(str(path)), api_name="/detect")
    found = PixelDetector.from_pretrained("embedded", device="cpu")(photo)
    assert "cat.png**: the detector found" in status and f"(score {found.score:.2f})" in status and details is None
    assert len(overlay["annotations"]) == len(found.regions or ())

    kept, *_ = client.predict(painted(editor["layers"]), api_name="/decide")
    expected = Examined("cat.png", photo, found, "", "").mask
    assert kept["edited"] is False and kept["has_artifact"] is bool(expected.any())
    assert kept["found"]["score"] == pytest.approx(found.score) and kept["detector"] == "embedded"
    if expected.any():
        assert np.array_equal(decoded(kept), expected)

    mask = np.zeros((160, 200), bool)
    mask[40:90, 100:150] = True
    Image.fromarray(painting(mask, (640, 512), BRUSH)).save(tmp_path / "layer.png")
    edited, file, *_ = client.predict(painted([str(tmp_path / "layer.png")]), api_name="/decide")
    assert edited["edited"] is True and edited["box"] == [100, 40, 150, 90] and np.array_equal(decoded(edited), mask)
    assert json.loads(Path(file["value"] if isinstance(file, dict) else file).read_text()) == edited

    nothing, *_ = client.predict(painted([]), api_name="/decide")
    assert nothing["has_artifact"] is False and nothing["mask"] is None


def test_the_mask_of_the_decision_is_corrected(tmp_path: Path) -> None:
    red_detector().save_pretrained(tmp_path / "detector")
    photo = square((12, 8, 28, 24))
    photo.save(tmp_path / "red.png")
    mask = np.zeros(photo.size[::-1], bool)
    mask[8:24, 12:28] = True
    Image.fromarray(painting(mask, (640, 480), BRUSH)).save(tmp_path / "layer.png")
    settings = AppSettings(tmp_path / "kept", model="", detector=str(tmp_path / "detector"), device="cpu")
    app, url = launch(settings, block=False)
    try:
        client = Client(url, verbose=False)
        client.predict(handle_file(str(tmp_path / "red.png")), api_name="/detect")
        with pytest.raises(AppError, match="Press Decide first"):
            client.predict(api_name="/correct")
        client.predict(painted([]), api_name="/decide")
        with pytest.raises(AppError, match="Paint what is wrong"):
            client.predict(api_name="/correct")
        client.predict(painted([str(tmp_path / "layer.png")]), api_name="/decide")
        told, (before, after) = client.predict(api_name="/correct")
        assert "The region was corrected: the detector sees no artifact there any more (1 round, score" in told
        old, new = (np.asarray(Image.open(path).convert("RGB")).astype(int) for path in (before, after))
        assert np.array_equal(old, np.asarray(photo))
        assert (new[12:20, 16:24, 0] - new[12:20, 16:24, 1]).max() < 80  # not red any more
        assert np.array_equal(new[40:], old[40:]) and np.array_equal(new[:, 48:], old[:, 48:])
        # Another decision does not show the correction of the last one.
        assert client.predict(painted([]), api_name="/decide")[-2:] in (("", None), ["", None])
    finally:
        app.close()


def test_regions_of_boxes_are_filled() -> None:
    detection = Detection((8, 6), True, (DetectedRegion((1.0, 2.0, 3.5, 4.0)),), None, {})
    examined = Examined("a.png", Image.new("RGB", (8, 6)), detection, "m", "r")
    assert np.argwhere(examined.mask).tolist() == [[row, column] for row in (2, 3) for column in (1, 2, 3)]
    assert examined.decide(examined.mask).edited is False
    assert examined.decide(np.zeros((6, 8), bool)).as_dict()["has_artifact"] is False
