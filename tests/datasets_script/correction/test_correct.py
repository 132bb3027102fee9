"""`artiagent correct` with tiny models: the folder of a run, kill and continue, models of language, and endpoints."""

from __future__ import annotations

import base64
import io
import json
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets_script import correct
from datasets_script.cli.main import main
from datasets_script.correction.edit_endpoint import EditUnavailable, EndpointInpainter
from datasets_script.correction.folder import read_corrections
from datasets_script.correction.repairers import load_repairer
from datasets_script.correction.settings import CorrectionSettings
from datasets_script.engine.loading import ModelLoadError
from datasets_script.pairs.storage import read_pair_files
from datasets_script.schema.correction import CORRECTIONS_FILE, CorrectionRecord
from datasets_script.utils.errors import ArgumentError, UserError
from diffusers_artifact.repair import RegionRepairer

from ...helpers.killed import kill_once
from ...helpers.tiny_detectors import red_detector, square
from ...helpers.tiny_pipelines import save_pipelines, tiny_flux2, tiny_sd


BOX = (12, 8, 28, 24)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    red_detector().save_pretrained(folder / "detector")
    return {**save_pipelines({"sd": tiny_sd}, folder), "detector": str(folder / "detector")}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    square(BOX, 0).save(folder / "one.png")
    square((34, 20, 52, 38), 1).save(folder / "two.png")
    square(None, 2).save(folder / "clean.png")
    return folder


def fix(models: dict[str, str], images: Path, out: Path, *names: str, **changes: Any) -> CorrectionRecord:
    options: dict[str, Any] = {
        "detector": models["detector"],
        "repairer": models["sd"],
        "num_inference_steps": 2,
        "guidance": 1.0,
        "device": "cpu",
        "show_progress": False,
        "settings": CorrectionSettings(max_rounds=2, candidates=2),
    }
    chosen = names or ("one", "two", "clean")
    return correct([images / f"{name}.png" for name in chosen], out, **{**options, **changes})


@pytest.fixture(scope="module")
def fixed(models, images, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "fixed"
    fix(models, images, out)
    return out


def test_every_round_is_on_disk_and_outside_is_exact(fixed, images):
    done = {image.id: image for image in read_corrections(fixed)}
    assert set(done) == {"one", "two", "clean"}
    assert not done["clean"].regions and not done["clean"].changed
    before = np.asarray(Image.open(images / "one.png"))
    region = done["one"].regions[0]
    assert region.before.has_artifact and region.rounds and done["one"].evaluations > 0
    for number, one in enumerate(region.rounds, 1):
        folder = fixed / "rounds" / "one" / "region-1" / f"round-{number}"
        assert json.loads((folder / "round.json").read_text())["seeds"] == list(one.seeds)
        inside = np.asarray(Image.open(folder / "mask.png")) > 0
        assert inside[BOX[1] : BOX[3], BOX[0] : BOX[2]].all()
        for candidate in (1, 2):
            repaired = np.asarray(Image.open(folder / f"repaired-{candidate}.png"))
            assert (repaired[~inside] == before[~inside]).all() and (repaired[inside] != before[inside]).any()
    clean = np.asarray(Image.open(fixed / "images" / "clean.png"))
    assert (clean == np.asarray(Image.open(images / "clean.png"))).all()
    assert all((fixed / "overlays" / f"{name}.png").is_file() for name in done)


def test_the_record_says_what_was_done(fixed):
    record = CorrectionRecord.read(fixed)
    assert record.status == "complete" and record.totals["images"] == 3
    assert record.totals["rounds"] == sum(
        len(region.rounds) for image in read_corrections(fixed) for region in image.regions
    )
    assert record.models["repairer"]["inpainter"] == "StableDiffusionInpaintPipeline"
    assert record.models["verifier"]["model"] == "detector" and record.versions["diffusers"]


def pictures_of(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*.png"))}


def outcome_of(out: Path) -> dict[str, Any]:
    return {image.id: (image.changed, [region.outcome for region in image.regions]) for image in read_corrections(out)}


def test_killed_and_continued_it_ends_with_the_same_images(fixed, models, images, tmp_path):
    out = tmp_path / "killed"
    ended = kill_once(lambda: list(out.glob("rounds/*/region-1/round-1/round.json")), fix, models, images, out)
    assert ended == -signal.SIGKILL and CorrectionRecord.read(out).status == "running"
    kept = next(out.glob("rounds/*/region-1/round-1/round.json"))
    written = kept.stat().st_mtime_ns
    fix(models, images, out)
    assert kept.stat().st_mtime_ns == written
    assert pictures_of(out) == pictures_of(fixed) and outcome_of(out) == outcome_of(fixed)


def test_what_came_out_clean_is_written_as_pairs(models, images, tmp_path):
    out = tmp_path / "run"
    # Up to a score of 1, everything counts as clean.
    satisfied = CorrectionSettings(max_rounds=1, candidates=1, threshold=1.0)
    box = {"box": BOX, "prompt": "a wall", "settings": satisfied, "pairs": True}
    assert fix(models, images, out, "one", **box).totals["pairs"] == 1
    assert fix(models, images, out, "one", "two", **box).totals["pairs"] == 2
    pairs = list(read_pair_files([str(out / "pairs.parquet")]))
    assert [pair.source_id for pair in pairs] == ["one", "two"] and pairs[0].caption == "a wall"
    assert {pair.num_inference_steps for pair in pairs} == {2}
    assert np.array_equal(np.asarray(pairs[0].flawed), np.asarray(Image.open(images / "one.png").convert("RGB")))
    assert np.array_equal(np.asarray(pairs[0].clean), np.asarray(Image.open(out / "images" / "one.png")))
    assert pairs[0].artifacts[0].mask[BOX[1] : BOX[3], BOX[0] : BOX[2]].any()
    # What does not come out clean is none.
    assert fix(models, images, tmp_path / "none", "clean", pairs=True).totals["pairs"] == 0
    Image.new("RGB", (60, 48)).save(tmp_path / "odd.png")
    with pytest.raises(ArgumentError, match="multiples of 8 px.*odd.png' of 60x48 px"):
        fix(models, tmp_path, tmp_path / "odd", "odd", pairs=True)
    assert not (tmp_path / "odd").exists()


def test_images_of_earlier_calls_are_checked_before_they_are_written_as_pairs(models, images, tmp_path):
    folder, out = tmp_path / "images", tmp_path / "run"
    shutil.copytree(images, folder)
    Image.new("RGB", (60, 48)).save(folder / "odd.png")
    only_look = {"settings": CorrectionSettings(max_rounds=0)}
    fix(models, folder, out, "one", "odd", **only_look)
    with pytest.raises(ArgumentError, match="multiples of 8 px.*odd.png' of 60x48 px"):
        fix(models, folder, out, "two", pairs=True, **only_look)
    (folder / "odd.png").rename(folder / "elsewhere.png")
    with pytest.raises(UserError, match="got no file '.*odd.png' for 'odd'; put it back, or leave out `pairs`"):
        fix(models, folder, out, "two", pairs=True, **only_look)
    square(BOX, 3).resize((64, 48)).save(folder / "odd.png")
    with pytest.raises(UserError, match="a run that began 'odd' with another image"):
        fix(models, folder, out, "two", pairs=True, **only_look)
    assert {image.id for image in read_corrections(out)} == {"one", "odd"}


def test_each_image_has_a_prompt_of_its_own(models, images, tmp_path, capsys):
    """Its own in the pair as well; and without one, nothing begins."""
    folder = tmp_path / "drawn"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / f"{name}.png").write_bytes((images / f"{name}.png").read_bytes())
    arguments = ["correct", str(folder), str(tmp_path / "out"), "--own-prompts", "--pairs", "--threshold", "1"]
    arguments += ["--box", ",".join(map(str, BOX)), "--detector", models["detector"], "--repairer", models["sd"], "-q"]
    arguments += ["--num-inference-steps", "2", "--max-rounds", "1", "--candidates", "1", "--device", "cpu"]
    rows = [{"file_name": "one.png", "prompt": "a wall"}, {"file_name": "two.png", "prompt": "a door"}]
    for number, row in enumerate(rows):
        assert main(arguments) == 2 and not (tmp_path / "out").exists()
        assert f"got {2 - number} of 2 without, first '{folder}/" in capsys.readouterr().err
        with (folder / "metadata.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
    assert main(arguments) == 0
    assert {image.id: image.regions[0].prompt for image in read_corrections(tmp_path / "out")} == {
        "one": "a wall",
        "two": "a door",
    }
    assert [pair.caption for pair in read_pair_files([str(tmp_path / "out" / "pairs.parquet")])] == [
        "a wall",
        "a door",
    ]
    with pytest.raises(ArgumentError, match="the prompt of each image by its id, got none for 'two'"):
        fix(models, images, tmp_path / "other", "two", prompt={"one": "a wall"})


def test_a_run_grows_by_images_and_refuses_other_settings(models, images, tmp_path):
    out = tmp_path / "run"
    fix(models, images, out, "one", box=BOX)
    first = (out / "images" / "one.png").read_bytes()
    record = fix(models, images, out, "one", "clean", box=BOX)
    assert record.totals["images"] == 2 and (out / "images" / "one.png").read_bytes() == first
    assert all(image.regions[0].given for image in read_corrections(out))
    with pytest.raises(UserError, match="holds a run with another given.box"):
        fix(models, images, out, "one", box=(0, 0, 9, 9))


@pytest.mark.parametrize("is_done", [True, False])
def test_an_image_or_a_prompt_that_changed_meanwhile_is_not_mixed_with_what_was_done(
    models, images, tmp_path, is_done
):
    out, folder = tmp_path / "run", tmp_path / "images"
    shutil.copytree(images, folder)
    options: dict[str, Any] = {"box": BOX, "settings": CorrectionSettings(max_rounds=1, candidates=1)}
    fix(models, folder, out, "one", prompt={"one": "a wall"}, **options)
    if not is_done:  # killed after its last round
        (out / CORRECTIONS_FILE).unlink()
    (folder / "one.png").touch()
    with pytest.raises(UserError, match="a run that began 'one' with another prompt; give the same"):
        fix(models, folder, out, "one", prompt={"one": "a door"}, **options)
    shutil.copy(images / "two.png", folder / "one.png")
    with pytest.raises(UserError, match="a run that began 'one' with another image and another prompt"):
        fix(models, folder, out, "one", prompt={"one": "a door"}, **options)
    shutil.copy(images / "one.png", folder / "one.png")
    assert fix(models, folder, out, "one", prompt={"one": "a wall"}, **options).totals["images"] == 1


def test_a_mask_is_repaired_by_the_command(models, images, tmp_path, capsys):
    mask = np.zeros((48, 64), dtype=np.uint8)
    mask[10:20, 14:24] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    options = ["--detector", models["detector"], "--repairer", models["sd"], "--num-inference-steps", "2"]
    options += ["--max-rounds", "1", "--candidates", "1", "--device", "cpu", "-q"]
    arguments = ["correct", str(images / "one.png"), str(tmp_path / "out"), "--mask", str(tmp_path / "mask.png")]
    assert main([*arguments, *options]) == 0
    assert "1 images, 1 with regions" in capsys.readouterr().out
    (image,) = read_corrections(tmp_path / "out")
    assert image.regions[0].box == (14, 10, 24, 20)


def test_the_embedded_models_repair_offline(tmp_path):
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(90, 110, (96, 120, 3), dtype=np.uint8))
    photo.save(tmp_path / "photo.png")
    settings = CorrectionSettings(max_rounds=1, candidates=1)
    out = tmp_path / "out"
    correct([tmp_path / "photo.png"], out, box=(40, 30, 64, 54), settings=settings, device="cpu", show_progress=False)
    (image,) = read_corrections(out)
    round_folder = out / "rounds" / "photo" / "region-1" / "round-1"
    inside = np.asarray(Image.open(round_folder / "mask.png")) > 0
    repaired = np.asarray(Image.open(round_folder / "repaired-1.png"))
    assert (repaired[~inside] == np.asarray(photo)[~inside]).all()
    assert np.abs(repaired[inside].astype(int) - 100).mean() < 20  # it goes on as around it
    assert image.regions[0].rounds[0].evaluations > 0


class _Handler(BaseHTTPRequestHandler):
    """Answers questions of detection by script, and paints regions grey."""

    requests: list[tuple[str, Any]]
    yes: list[bool]
    failures: list[int]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.failures:
            self._send(self.failures.pop(0), {"error": {"message": "busy"}})
        elif self.path.endswith("/images/edits"):
            self._send(200, {"data": [{"b64_json": self._edited(body)}]})
        else:
            self._send(200, {"choices": [{"message": {"content": self._answer(json.loads(body))}}]})

    def _edited(self, body: bytes) -> str:
        header = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts: dict[str, bytes] = {}
        for part in BytesParser().parsebytes(header + body).walk():
            content = part.get_payload(decode=True)
            if isinstance(content, bytes):  # not the whole of the parts
                parts[str(part.get_param("name", header="content-disposition"))] = content
        self.requests.append(("edit", parts["prompt"].decode()))
        image, mask = (Image.open(io.BytesIO(parts[name])) for name in ("image", "mask"))
        opaque = np.asarray(mask.getchannel("A")) > 0
        painted = np.where(opaque[..., None], np.asarray(image), 77).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(painted).resize((512, 512)).save(buffer, format="PNG")
        return base64.b64encode(buffer.getvalue()).decode()

    def _answer(self, body: dict[str, Any]) -> str:
        text = body["messages"][0]["content"][-1]["text"]
        task = text.split("\n")[0].removeprefix("Task: ").removesuffix(".")
        self.requests.append((task, text))
        if task == "verify":
            return "Yes" if not self.yes or self.yes.pop(0) else "No"
        return {
            "detection": "Yes",
            "localization": '[{"bbox_2d": [0.188, 0.167, 0.438, 0.5], "label": "red square"}]',
            "explanation": "A red square.",
            "caption": '{"caption": "a plain grey wall"}',
        }[task]

    def _send(self, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@contextmanager
def served(yes: list[bool], failures: list[int] | None = None) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    requests: list[tuple[str, Any]] = []
    handler = type("Handler", (_Handler,), {"requests": requests, "yes": yes, "failures": failures or []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def online(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


def test_a_language_model_finds_describes_and_judges_and_an_endpoint_draws(images, tmp_path, online):
    from datasets_script.vlm.spec import VLMSpec

    with served(yes=[True, True, False]) as (url, requests):
        correct(
            [images / "one.png"],
            tmp_path / "out",
            detector="some-vlm",
            repairer="some-editor",
            repairer_endpoint=url,
            vlm=VLMSpec("-", endpoint=url, cache=tmp_path / "cache"),
            settings=CorrectionSettings(max_rounds=3, candidates=1),
            device="cpu",
            show_progress=False,
        )
    (image,) = read_corrections(tmp_path / "out")
    (region,) = image.regions
    assert region.label == "red square" and region.outcome == "clean" and len(region.rounds) == 2
    assert region.prompt == "a plain grey wall" and image.changed
    asked = [task for task, _ in requests]
    assert asked.count("verify") == 3 and asked.count("caption") == 1 and asked.count("edit") == 2
    assert all("a plain grey wall" in text for task, text in requests if task == "edit")
    after = np.asarray(Image.open(tmp_path / "out" / "images" / "one.png"))
    assert np.abs(after[16, 20].astype(int) - 77).max() <= 3
    assert CorrectionRecord.read(tmp_path / "out").totals["prompt_tokens"] == 0


def test_an_editing_endpoint_is_asked_again_and_says_why_it_refuses(online):
    image = square(BOX)
    mask = np.zeros((48, 64), dtype=bool)
    mask[8:24, 12:28] = True
    with served(yes=[], failures=[503, 429]) as (url, requests):
        done = RegionRepairer(EndpointInpainter("m", url, base_delay=0.01))(image, mask)
    assert len(requests) == 1 and (np.asarray(done.images[0])[~done.mask] == np.asarray(image)[~done.mask]).all()
    with served(yes=[], failures=[400]) as (url, _), pytest.raises(EditUnavailable, match="refuses .*: HTTP 400"):
        RegionRepairer(EndpointInpainter("m", url))(image, mask)


def test_what_needs_no_model_is_checked_before_one_is_loaded(tmp_path):
    square(BOX).save(tmp_path / "one.png")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    for changes, message in (
        ({"repair_method": "inpaint"}, "`repair_method` must be denoise for the embedded model"),
        ({"box": (500.0, 500.0, 510.0, 510.0)}, "`box` must lie in the image, of 64x48 px"),
        ({"out": tmp_path / "other"}, "OUT must be a new or empty folder"),
    ):
        arguments = {"out": tmp_path / "out", "detector": "nobody/nothing", "device": "cpu", **changes}
        with pytest.raises(UserError, match=message):
            correct([tmp_path / "one.png"], **arguments)


def test_what_cannot_repair_is_told(models, images, tmp_path):
    with pytest.raises(ArgumentError, match="`repair_method` must be denoise for the embedded model"):
        load_repairer("embedded", method="inpaint")
    folder = save_pipelines({"flux2": tiny_flux2}, tmp_path)["flux2"]
    with pytest.raises(ModelLoadError, match="a Flux2Pipeline; use the method denoise"):
        load_repairer(folder, method="inpaint")
    assert load_repairer(folder).identity()["inpainter"] == "denoising"
    with pytest.raises(ArgumentError, match="`box` and `mask` both name the region"):
        fix(models, images, tmp_path / "out", box=BOX, mask="mask.png")
