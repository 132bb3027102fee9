"""The tab Make, through the app that is served: a photo is taken, artifacts are made, pairs kept and read again."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


pytest.importorskip("gradio", reason="the extra `app` is not installed")

from gradio_client import Client, handle_file  # noqa: E402
from gradio_client.exceptions import AppError  # noqa: E402

from datasets_script.app.main import AppSettings, launch  # noqa: E402
from datasets_script.app.make_tab import box_mask  # noqa: E402
from datasets_script.app.painted import painting  # noqa: E402
from datasets_script.app.studio import Studio  # noqa: E402
from datasets_script.engine.settings import InjectionSettings  # noqa: E402
from datasets_script.pairs.storage import find_shards, read_pairs  # noqa: E402
from datasets_script.schema.run_record import RunRecord  # noqa: E402
from datasets_script.utils.errors import ArgumentError, UserError  # noqa: E402

from ...helpers.engine_runs import SmallInjector  # noqa: E402
from ...helpers.made_pairs import make_pair, write_run  # noqa: E402


SIDE = 128


@dataclass(frozen=True)
class Served:
    client: Client
    url: str
    data: Path

    def make(self, tool: str = "remove", painted: dict[str, Any] | None = None, **other: Any) -> tuple[Any, ...]:
        given = {"typed": "" if painted else "32, 40, 64, 80", "entity": "cat", "part": "ear", "seed": 0} | other
        return self.client.predict(painting=painted, tool=tool, api_name="/make", **given)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("app")
    SmallInjector("embedded", InjectionSettings(), device="cpu").pipeline.save_pretrained(folder / "model")
    settings = AppSettings(folder / "kept", model=str(folder / "model"), device="cpu")
    app, url = launch(settings, block=False)
    yield Served(Client(url, verbose=False), url, folder / "kept")
    app.close()


def picture(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_an_artifact_is_made_kept_and_read_like_a_run(served: Served, tmp_path: Path) -> None:
    with pytest.raises(AppError, match="Choose a photo first"):
        served.make()
    status, editor, *_ = served.client.predict("cat.png", api_name="/take_demo")
    assert "**cat.png**, 128 × 128 pixels, is ready" in status
    assert picture(editor["background"]).shape == (640, 640, 3)

    mask = box_mask("32, 40, 64, 80", (SIDE, SIDE))
    layer = tmp_path / "layer.png"
    Image.fromarray(painting(mask, (640, 640))).save(layer)
    painted = {"background": None, "layers": [handle_file(str(layer))], "composite": None}
    of_paint, of_box = served.make(painted=painted), served.make()
    assert {**of_paint[3], "seconds": 0} == {**of_box[3], "seconds": 0}

    status, annotated, (clean, flawed), label = of_box
    assert label["type"] == "omission" and label["label"] == "missing ear" and label["visible_pixels"] > 0
    assert "pixels changed visibly" in status and annotated["annotations"][0]["label"] == "omission"
    x_min, y_min, x_max, y_max = (int(number) for number in label["box"])
    differs = (picture(clean) != picture(flawed)).any(axis=2)
    assert differs[y_min:y_max, x_min:x_max].any()

    assert "now holds 1 pairs" in served.client.predict(api_name="/keep")
    with pytest.raises(AppError, match="Make an artifact first"):
        served.client.predict(api_name="/keep")
    distorted = served.make("distort", kernel="shuffle", seed=3)[3]
    assert distorted["kernel"] == "shuffle" and distorted["seed"] == 3
    assert "**cat.png:1**" in served.client.predict(api_name="/keep")

    record, pairs = RunRecord.read(served.data), list(read_pairs(served.data))
    assert record.is_complete and record.pairs == 2 and record.accepted == {"omission": 1, "distortion": 1}
    assert record.perception == {"backend": "hand"} and record.sources["count"] == 2
    assert find_shards(served.data) and (served.data / "contact_sheet.png").exists()
    assert [pair.pair_id for pair in pairs] == ["cat.png:0", "cat.png:1"]
    first = pairs[0]
    assert np.array_equal(np.asarray(first.flawed), picture(flawed))
    assert np.array_equal(np.asarray(first.clean), picture(clean))
    assert list(first.artifacts[0].bbox) == label["box"] and first.source.size == (SIDE, SIDE)


def test_shuffling_a_duplication_finds_another_place(served: Served) -> None:
    served.client.predict("cat.png", api_name="/take_demo")
    targets = [served.make("add", seed=seed)[1] for seed in (0, 1)]
    assert not np.array_equal(picture(targets[0]["image"]), picture(targets[1]["image"]))


def test_a_photo_of_ones_own_is_cropped_and_a_broken_one_refused(served: Served, tmp_path: Path) -> None:
    own, broken = tmp_path / "own.jpg", tmp_path / "broken.png"
    Image.radial_gradient("L").convert("RGB").resize((300, 200)).save(own)
    broken.write_bytes(b"no image")
    status, *_ = served.client.predict(handle_file(str(own)), api_name="/take")
    assert "128 × 128 pixels, is ready" in status
    with pytest.raises(AppError):
        served.client.predict(handle_file(str(broken)), api_name="/take")


def test_wishes_that_cannot_be_met_are_told_in_one_line(served: Served) -> None:
    served.client.predict("coffee.png", api_name="/take_demo")
    wrong: dict[str, dict[str, Any]] = {
        "the region must be painted first": {"painted": {"background": None, "layers": [], "composite": None}},
        "the box must be four numbers": {"typed": "1, 2"},
        r"the box must lie in the photo of 128 × 128 pixels": {"typed": "0, 0, 200, 20"},
        "the region must cover at least a patch": {"typed": "0, 0, 4, 4"},
        "the second thing must be painted for fuse": {"tool": "fuse"},
    }
    for message, given in wrong.items():
        with pytest.raises(AppError, match=message):
            served.make(**given)


def test_pages_name_no_other_host_and_report_to_nobody(served: Served) -> None:
    with urllib.request.urlopen(f"{served.url}config") as answer:
        config = json.load(answer)
    assert config["analytics_enabled"] is False
    with urllib.request.urlopen(f"{served.url}theme.css") as answer:
        assert "fonts.googleapis" not in answer.read().decode()


def test_folders_and_hosts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [make_pair(0)], shards=1)
    with pytest.raises(UserError, match="must hold pairs that were kept in the app, got a run of 'annotations'"):
        Studio("embedded", run)
    with pytest.raises(ArgumentError, match="`queue` must be given for others to reach the app"):
        AppSettings(host="0.0.0.0")
    with pytest.raises(ArgumentError, match="`queue` must be given for others to reach the app"):
        AppSettings(data=None, compare=(Path("base"), Path("best")), host="0.0.0.0")
    assert AppSettings(data=None, host="0.0.0.0").is_public  # nothing is kept, so that nothing has to be protected
    with pytest.raises(ArgumentError, match="there would be nothing to show"):
        AppSettings(model="", detector="")
