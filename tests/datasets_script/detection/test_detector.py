"""The detector of artifacts, its figures and the command."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets_script.cli import detect as command
from datasets_script.cli.faults import guarded
from datasets_script.cli.main import build_parser, main
from datasets_script.detection.detector import ArtifactDetector, read_labels, upright
from datasets_script.figures.detections import detection_picture
from datasets_script.schema.detection import DetectedRegion, Detection
from datasets_script.utils.errors import UserError
from datasets_script.utils.photos import SourceError
from datasets_script.vlm import VLM, VLMAnswer, VLMUnavailable
from datasets_script.vlm.conventions import BoxFormat, format_box

from ...helpers.tiny_vlms import talking_vlm


BOXES = (
    '```json\n[{"bbox_2d": [0.25, 0.5, 0.5, 1.0], "label": "six fingers"},\n'
    ' {"bbox_2d": [0, 0, 0.1, 0.2], "label": "a \\"second\\" ear"}]\n```'
)
ANSWERS = {"detection": "Yes.", "localization": BOXES, "explanation": "Six fingers, and a second ear."}
SIZE = (40, 20)
REGIONS = (DetectedRegion((10, 10, 20, 20), "six fingers"), DetectedRegion((0, 0, 4, 4), 'a "second" ear'))


@pytest.fixture(scope="module")
def talker(tmp_path_factory):
    return talking_vlm(tmp_path_factory.mktemp("vlm") / "talker", ANSWERS)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.jpg", "more/a.png")):
        Image.new("RGB", SIZE, (50 * number, 90, 90)).save(folder / name)
    (folder / "annotations.json").write_text("{}")
    return folder


class Scripted(VLM):
    """Says yes of images that are red, no of those that are green, and of others what cannot be read."""

    def __init__(self, patience: int = 1000) -> None:
        super().__init__("scripted")
        self.asked: list[tuple[str, ...]] = []
        self.patience = patience

    def ask(self, requests):
        if len(self.asked) >= self.patience:
            raise KeyboardInterrupt
        self.asked.append(tuple(request.task for request in requests))
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        red, green, _ = request.images[0].getpixel((0, 0))
        if max(red, green) < 100:
            return VLMAnswer(None, "", "refused") if request.task == "explanation" else VLMAnswer(None, "Perhaps.")
        clean = {"detection": "No.", "localization": "[]", "explanation": "No artifacts."}
        return VLMAnswer(None, (ANSWERS if red > green else clean)[request.task])


RED, GREEN, BLACK = (Image.new("RGB", SIZE, color) for color in ((200, 0, 0), (0, 200, 0), (0, 0, 0)))


def run(*arguments: object) -> int:
    parser = build_parser()
    args = parser.parse_args(["detect", *map(str, arguments)])
    return args.run(args)


class TestDetector:
    def test_copies_land_beside_the_folder_of_the_images(self, photos):
        assert command._beside(photos) == command._beside(photos / "a.png") == photos.parent / "photos-detected"

    def test_a_model_is_loaded_and_asked(self, talker, photos):
        detector = ArtifactDetector(str(talker), device="cpu", coordinates="normalized")
        detection = detector(photos / "b.jpg")
        assert detection == Detection(SIZE, True, REGIONS, ANSWERS["explanation"], ANSWERS)
        assert detector([str(photos / "b.jpg"), Image.open(photos / "a.png")]) == [detection, detection]

    def test_where_and_why_are_asked_of_those_with_a_yes(self):
        vlm = Scripted()
        red, green, black = ArtifactDetector(vlm)([RED, GREEN, BLACK])
        assert vlm.asked == [("detection",) * 3, ("localization", "explanation")]
        assert red.has_artifact is True and red.regions == REGIONS
        assert green == Detection(SIZE, False, (), None, {"detection": "No."})
        assert black.has_artifact is None and black.regions is None and black.explanation is None
        assert black.failures == ("detection: it says neither yes nor no",)

    def test_all_may_be_asked_and_no_answer_is_no_no(self):
        green, black = ArtifactDetector(Scripted(), ask_all=True)([GREEN, BLACK])
        assert green.regions == () and green.explanation == "No artifacts." and not green.failures
        assert black.has_artifact is None and black.regions is None and "explanation" not in black.answers
        assert [failure.partition(":")[0] for failure in black.failures] == [
            "detection",
            "localization",
            "explanation",
        ]

    def test_an_iterable_is_read_a_batch_at_a_time(self):
        vlm, taken = Scripted(), iter([GREEN] * 5)
        detections = ArtifactDetector(vlm, batch_size=2).stream(taken)
        assert next(detections).has_artifact is False and len(vlm.asked[0]) == 2
        assert len(list(detections)) == 4 and vlm.asked == [("detection",) * 2, ("detection",) * 2, ("detection",)]
        with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
            ArtifactDetector(vlm, batch_size=0)

    def test_boxes_are_in_the_upright_image(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        image = Image.new("RGB", SIZE, (200, 0, 0))
        image.save(tmp_path / "turned.jpg", exif=exif)
        for image in (tmp_path / "turned.jpg", Image.open(tmp_path / "turned.jpg")):
            detection = ArtifactDetector(Scripted())(image)
            assert detection.size == (20, 40) and detection.regions and detection.regions[0].box == (5, 20, 10, 40)

    def test_pixels_of_16_bits_are_not_clipped_and_what_is_no_image_is_told(self, tmp_path):
        grey = Image.fromarray(np.full((20, 40), 128 * 257, dtype=np.uint16))
        assert upright(grey).getpixel((0, 0)) == (128, 128, 128)
        (tmp_path / "note.png").write_text("no image")
        with pytest.raises(SourceError, match="not an image"):
            ArtifactDetector(Scripted())([RED, tmp_path / "note.png"])

    def test_a_result_is_plain_data(self):
        plain = ArtifactDetector(Scripted())(RED).to_dict()
        assert json.loads(json.dumps(plain)) == plain
        assert plain["regions"][0] == {"box": [10.0, 10.0, 20.0, 20.0], "label": "six fingers"}
        assert ArtifactDetector(Scripted())(BLACK).to_dict()["regions"] is None


@pytest.mark.parametrize(
    ("convention", "answer"),
    [
        ("qwen2.5", '[{{"bbox_2d": {0}, "label": "an ear"}}, {{"label": "no \\d end", "bbox_2d": {1}}}]'),
        ("qwen3", '<think>hm</think>```json\n[{{"bbox_2d": {0}, "label": "an ear"}},{{"bbox_2d": {1}, "label":"x'),
        ("internvl", "<ref>an  ear</ref>{0}\n<ref>no \\d end</ref>{1}"),
        ("llava", "{0}: an ear\n{1} no \\d end"),
        ("llava", "1. {0}, an ear.\n2. {1}"),
        ("pixel", "<think>"),
    ],
)
def test_labels_belong_to_their_boxes_in_any_form(convention, answer):
    size, form = (560, 280), BoxFormat(convention)
    boxes = [(56.0, 56.0, 112.0, 84.0), (280.0, 140.0, 560.0, 280.0)]
    text = answer.format(*(format_box(box, size, convention) for box in boxes))
    labels = {box: label.rstrip(".") for box, label in read_labels(text, size, form).items()}
    assert labels == {
        box: label
        for box, label in zip(boxes, ("an ear", "no \\d end"), strict=True)
        if label in text.replace("  ", " ")
    }


class TestFigure:
    def test_a_numbered_box_is_drawn_where_the_region_is(self):
        image = Image.new("RGB", (768, 768), "white")
        region = DetectedRegion((100, 200, 300, 400), "six fingers")
        picture = detection_picture(image, Detection((768, 768), True, (region,), "Too many.", {}))
        pixels = np.asarray(picture)[:768] != 255
        rows, columns = np.nonzero(pixels.any(axis=-1))
        assert (columns.min(), columns.max()) == (100, 299) and rows.max() == 399 and 170 < rows.min() <= 200
        assert picture.height > 768 + 60

    @pytest.mark.parametrize("text", ["", "word " * 300, "手指太多了" * 80, "\ud83d broken", "مرحبا\n\tx" * 9])
    @pytest.mark.parametrize("size", [(1, 1), (3000, 40), (40, 3000)])
    def test_any_text_and_size_fits(self, text, size):
        detection = Detection(size, True, (DetectedRegion((0, 0, *size), text),), text, {}, (f"localization: {text}",))
        picture = detection_picture(Image.new("RGB", size), detection, f"{text}.png")
        assert picture.width >= 640 and (np.asarray(picture)[-4:] == 255).all()

    def test_what_is_said_of_a_clean_and_of_an_unread_image_differs(self):
        shown = [
            detection_picture(GREEN, Detection(SIZE, verdict, regions, None, {}))
            for verdict, regions in ((False, ()), (None, None), (True, ()))
        ]
        assert len({picture.tobytes() for picture in shown}) == 3
        with pytest.raises(
            ValueError, match="`image` must have the size of `detection`, \\(1, 1\\), got \\(40, 20\\)"
        ):
            detection_picture(GREEN, Detection((1, 1), False, (), None, {}))


class TestCommand:
    def test_images_and_folders_give_lines_and_figures(self, talker, photos, tmp_path, capsys):
        out = photos / "seen"
        options = ("--model", talker, "--out", out, "--device", "cpu", "--coordinates", "normalized")
        for _ in range(2):  # the figures of the first call are no inputs of the second
            assert run(photos / "a.png", photos, *options, "--cache", tmp_path / "cache", "--batch-size", 3) == 0
            told = capsys.readouterr()
            lines = [json.loads(line) for line in told.out.splitlines()]
            assert [Path(line["image"]).relative_to(photos).as_posix() for line in lines] == [
                "a.png",
                "a.png",
                "b.jpg",
                "more/a.png",
            ]
        assert lines[2] == {
            "image": str(photos / "b.jpg"),
            **Detection(SIZE, True, REGIONS, ANSWERS["explanation"], ANSWERS).to_dict(),
            "overlay": str(out / "b.png"),
        }
        assert [Path(line["overlay"]).relative_to(out).as_posix() for line in lines] == [
            "a.png",
            "a.2.png",
            "b.png",
            "more/a.png",
        ]
        assert all(Image.open(line["overlay"]).width >= 640 for line in lines)
        assert "looking for artifacts" in told.err and not [*out.rglob("*.incomplete")]

    def test_what_was_done_before_an_interruption_is_whole(self, photos, tmp_path, capsys):
        inputs = [command.Input(photos / name, Path(f"{name}.png")) for name in ("a.png", "b.jpg", "more/a.png")]
        with pytest.raises(KeyboardInterrupt):
            command.write_detections(ArtifactDetector(Scripted(patience=2), batch_size=1), inputs, tmp_path / "out")
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line["image"] for line in lines] == [str(item.path) for item in inputs[:2]]
        assert [path.name for path in sorted((tmp_path / "out").rglob("*.*"))] == ["a.png.png", "b.jpg.png"]

    def test_the_command_line_tells_mistakes_in_a_line(self, tmp_path, capsys):
        assert main(["detect", str(tmp_path / "missing.png"), "--out", str(tmp_path / "out")]) == 2
        told = capsys.readouterr().err
        assert (
            told.startswith("artiagent: IMAGE must be images that can be read, got 1 of 1 that cannot:\n  ")
            and "Trace" not in told
        )

    def test_an_image_that_goes_away_while_the_model_is_loaded_is_told_in_a_line(self, photos, tmp_path, capsys):
        def remove_it_first(args):
            detector = ArtifactDetector(Scripted())
            inputs = [command.Input(photos / "a.png", Path("a.png"))]
            (photos / "a.png").unlink()
            command.write_detections(detector, inputs, tmp_path)

        args = argparse.Namespace(run=remove_it_first, interrupted="")
        assert guarded(args) == 2
        assert f"artiagent: {photos / 'a.png'}: cannot be read: No such file" in capsys.readouterr().err

    def test_all_that_cannot_be_used_is_told_before_a_model_is_loaded(self, photos, tmp_path):
        (photos / "broken.png").write_bytes((photos / "a.png").read_bytes()[:60])
        Image.new("RGB", (900, 4)).save(photos / "line.png")
        with pytest.raises(UserError) as error:
            run(photos, tmp_path / "missing.png", "--model", "no/such-model", "--out", tmp_path / "out")
        first, *lines = str(error.value).splitlines()
        assert first == "IMAGE must be images that can be read, got 3 of 6 that cannot:"
        assert lines[0].startswith(f"  {photos / 'broken.png'}: broken or truncated image")
        assert lines[1] == f"  {photos / 'line.png'}: too narrow: 900x4 px, one side is more than 200 times the other"
        reason = "cannot be read: No such file or directory; check that it is there and may be read"
        assert lines[2] == f"  {tmp_path / 'missing.png'}: {reason}"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--batch-size", 0), "--batch-size must be at least 1, got 0"),
            (("--max-pixels", 0), "--max-pixels must be at least 1, got 0"),
            (("--endpoint", "localhost:8000/v1", "--model", "m"), "the endpoint must begin with http:// or https://"),
            (("--endpoint", "http://localhost:8000/v1"), "--model must name the model at --endpoint http://"),
            (("--out", "{photos}/a.png"), "--out must be a folder that can be created, got '.*a.png': File exists"),
            (("{photos}/empty",), "IMAGE must be an image or a folder of images, found none in '.*empty'"),
        ],
    )
    def test_mistakes_are_told(self, photos, tmp_path, options, message):
        (photos / "empty").mkdir()
        given = [str(option).format(photos=photos) for option in options]
        with pytest.raises(UserError, match=message):
            run("--out", tmp_path / "out", *given, photos)
        with pytest.raises(VLMUnavailable, match="got 'no/such-model'"):
            run(photos, "--out", tmp_path / "out", "--model", "no/such-model")

    def test_the_help_says_what_the_default_is(self, capsys):
        with pytest.raises(SystemExit):
            run("--help")
        told = " ".join(capsys.readouterr().out.split())
        assert "a small pixel detector that comes with this package and needs no network" in told
        assert "(default: embedded)" in told
