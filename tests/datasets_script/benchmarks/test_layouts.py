"""Benchmarks read from small files in the layouts in which they are published."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from datasets_script.benchmarks.base import Benchmark, BenchmarkError, Skipped
from datasets_script.benchmarks.loki import Loki
from datasets_script.benchmarks.pal4vst import Pal4Vst
from datasets_script.benchmarks.reading import Mark, RecordError, place_marks, read_image
from datasets_script.benchmarks.registry import get_benchmark
from datasets_script.benchmarks.survey import skipped_summary
from datasets_script.benchmarks.synartifact import SynArtifact, _class_name
from datasets_script.benchmarks.synthscars import SynthScars
from datasets_script.benchmarks.x_aigd import XAigd
from datasets_script.schema.image import BENCHMARK_FEATURES, BenchmarkImage, image_to_row, row_to_image
from evaluate_metrics.functional.classification import CLASSES, find_class


SIZE = (32, 24)
BENCHMARKS = [Loki(), SynthScars(), SynArtifact(), Pal4Vst(), XAigd()]


def encode(format: str = "PNG", size: tuple[int, int] = SIZE, shade: int = 90) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade, 120, 200)).save(buffer, format=format)
    return buffer.getvalue()


def write(path: Path, content: bytes | str | Any) -> Path:
    """Bytes and texts as they are, anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def read(benchmark: Benchmark, source: Path, split: str) -> tuple[dict[str, BenchmarkImage], dict[str, str]]:
    """Images and reasons of skipped records, by id; every image must make a row."""
    items = list(benchmark.read(source, split))
    images = {item.id: item for item in items if isinstance(item, BenchmarkImage)}
    skipped = {item.id: item.reason for item in items if isinstance(item, Skipped)}
    assert len(images) + len(skipped) == len(items)
    for image in images.values():
        row = image_to_row(image)
        BENCHMARK_FEATURES.encode_example(row)
        assert row_to_image(row).metadata == image.metadata
    assert [repr(item) for item in items] == [repr(item) for item in benchmark.read(source, split)]
    records = [repr(record) for record in benchmark.records(source, split)]
    for start, stop in ((0, 1), (1, None), (1, 2), (len(records) // 2, len(records)), (len(records), None)):
        part = [repr(record) for record in benchmark.records(source, split, start, stop)]
        assert part == records[start:stop]
    return images, skipped


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_a_wrong_folder_gets_the_instructions(benchmark: Benchmark, tmp_path: Path) -> None:
    write(tmp_path / "unrelated.txt", "nothing")
    for split in benchmark.splits:
        with pytest.raises(BenchmarkError, match="found no") as error:
            list(benchmark.read(tmp_path, split))
        assert benchmark.instructions in str(error.value)


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_every_benchmark_tells_of_itself(benchmark: Benchmark) -> None:
    assert type(get_benchmark(benchmark.name)) is type(benchmark)
    assert benchmark.homepage.startswith("https://")
    assert benchmark.citation.startswith("@") and benchmark.citation.count("{") == benchmark.citation.count("}")
    assert benchmark.license in ("unknown", "apache-2.0", "cc-by-4.0")
    if benchmark.license == "unknown":
        assert "licence" in benchmark.instructions


class TestPlacing:
    """What all converters do with boxes and polygons at the border and beyond."""

    def test_boxes_are_cut_at_the_border_and_the_published_ones_kept(self) -> None:
        marked = place_marks("a", [Mark(box=(1, 2, 5, 6)), Mark(box=(-3, 4, 40, 10.5))], SIZE)
        assert [region.bbox for region in marked.regions] == [(1, 2, 5, 6), (0, 4, 32, 10.5)]
        assert marked.metadata == {"clipped_boxes": {"1": [-3, 4, 40, 10.5]}}
        assert marked.skipped == ()

    @pytest.mark.parametrize(
        ("mark", "reason"),
        [
            (Mark(box=(4, 4, 4, 9)), "the box [4, 4, 4, 9] has no area in an image of 32 × 24"),
            (Mark(box=(32, 0, 40, 9)), "the box [32, 0, 40, 9] has no area in an image of 32 × 24"),
            (Mark(), "the region has no polygon"),
            (Mark(polygons=((1, 1, 5, 5),)), "a polygon must be x and y of 3 points or more, got 4 numbers"),
            (Mark(polygons=((1, 1, 5, 5, 9, 1, 7),)), "a polygon must be x and y of 3 points or more, got 7 numbers"),
            (Mark(polygons=((1, 1, 5, 5, 9, 9),)), "the 3 points of a polygon lie on one line"),
            (Mark(polygons=((1, 1, 1, 1, 1, 1),)), "the 3 points of a polygon lie on one line"),
            (
                Mark(polygons=((1, 25, 5, 30, 9, 25),)),
                "the polygon's box [1, 25, 9, 30] has no area in an image of 32 × 24",
            ),
        ],
    )
    def test_what_marks_no_pixel_is_skipped_by_index(self, mark: Mark, reason: str) -> None:
        marked = place_marks("a", [Mark(box=(0, 0, 1, 1)), mark, Mark(box=(2, 2, 3, 3))], SIZE)
        assert [region.bbox for region in marked.regions] == [(0, 0, 1, 1), (2, 2, 3, 3)]
        assert marked.skipped == (Skipped("a#1", reason),)
        assert marked.metadata == {"skipped_regions": [1]}

    def test_polygons_stay_as_they_are_and_their_box_is_cut(self) -> None:
        across, small = (30.5, 20, 36, 20, 36, 30), (1.0, 2.0, 4.0, 2.0, 4.0, 3.0)
        [region] = place_marks("a", [Mark(polygons=(across, small))], SIZE).regions
        assert region.shape == "polygon" and region.polygons == (across, small)
        assert region.bbox == (1, 2, 32, 24)


class TestLoki:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        def record(name: str, regional: Any, description: str = "Odd light.") -> dict[str, Any]:
            return {
                "id": f"question-{name}",
                "image_path": f"image/scenery/{name}.png",
                "question": "Is something wrong?",
                "metric": "image-model-as-judge",
                "problems": {"global": [{"desc": description}], "regional": regional},
            }

        records = [
            record(
                "b",
                [{"region": [2, 3, 10, 4.5], "desc": "A bent pole. "}, {"region": [20, 20, 30, 30], "desc": "Roof"}],
            ),
            record("a", [], description=""),
            record("missing", [{"region": [1, 1, 2, 2], "desc": "x"}]),
            record("thin", [{"region": [5, 5, 0, 4], "desc": "nothing"}]),
            record("broken", [{"region": [5, 5, 4], "desc": "three numbers"}]),
            record("cut_short", [{"region": [5, 5, 4, 4], "desc": "x"}]),
            {"id": "3d", "image_path": "3D/c.png", "problems": {"rgb_texture": "x"}},
            "no object",
            {**record("b", []), "image_path": "../outside.png"},
        ]
        for name in ("b", "a", "thin", "broken"):
            write(tmp_path / "image" / "scenery" / f"{name}.png", encode())
        write(tmp_path / "image" / "scenery" / "cut_short.png", encode(size=(300, 200))[:200])
        write(tmp_path / "3D" / "c.png", encode())
        write(tmp_path.parent / "outside.png", encode())
        write(tmp_path / "open_ended_vqa.json", json.dumps(records).encode("utf-16"))
        return tmp_path

    def test_every_field(self, source: Path) -> None:
        images, skipped = read(Loki(), source, "test")
        assert list(images) == [f"image/scenery/{name}.png" for name in ("b", "a", "thin")]
        image = images["image/scenery/b.png"]
        assert image.image == encode() and image.size == SIZE and image.has_artifact is True
        assert [region.shape for region in image.regions] == ["box", "box"]
        assert [region.bbox for region in image.regions] == [(2, 3, 12, 7.5), (20, 20, 32, 24)]
        assert [region.caption for region in image.regions] == ["A bent pole.", "Roof"]
        assert [region.name for region in image.regions] == ["", ""]
        assert image.explanation == "Odd light." and image.caption == ""
        assert image.metadata == {
            "id": "question-b",
            "question": "Is something wrong?",
            "metric": "image-model-as-judge",
            "clipped_boxes": {"1": [20, 20, 50, 50]},
        }

    def test_an_image_without_a_description_is_unknown_not_clean(self, source: Path) -> None:
        images, _ = read(Loki(), source, "test")
        assert images["image/scenery/a.png"].has_artifact is None
        assert images["image/scenery/a.png"].regions == ()
        # Its only box is empty, and yet it was annotated.
        assert images["image/scenery/thin.png"].has_artifact is True
        assert images["image/scenery/thin.png"].metadata["skipped_regions"] == [0]

    def test_every_reason(self, source: Path) -> None:
        _, skipped = read(Loki(), source, "test")
        cut_short = skipped.pop("image/scenery/cut_short.png")
        assert cut_short.startswith("the image image/scenery/cut_short.png: the image cannot be decoded: ")
        assert skipped == {
            "image/scenery/missing.png": "the image image/scenery/missing.png is missing",
            "image/scenery/thin.png#0": "the box [5.0, 5.0, 5.0, 9.0] has no area in an image of 32 × 24",
            "image/scenery/broken.png": "'region' must be 4 numbers, got 3",
            "3D/c.png": "'regional' must be a list, got None",
            "record 7": "expected an object with the field 'image_path', got 'no object'",
            "../outside.png": "the path of the image, '../outside.png', leads out of its folder",
        }

    def test_utf_8_is_read_as_well(self, source: Path) -> None:
        expected = list(read(Loki(), source, "test")[0])
        text = (source / "open_ended_vqa.json").read_text(encoding="utf-16")
        write(source / "open_ended_vqa.json", text)
        assert list(read(Loki(), source, "test")[0]) == expected

    def test_other_content_says_what_differs(self, source: Path) -> None:
        write(source / "open_ended_vqa.json", {"questions": []})
        with pytest.raises(BenchmarkError, match="must hold a list, got {'questions': \\[\\]}"):
            list(Loki().read(source, "test"))
        write(source / "open_ended_vqa.json", "[{")
        with pytest.raises(BenchmarkError, match="open_ended_vqa.json is not JSON"):
            list(Loki().read(source, "test"))

    def test_check_finds_images_without_boxes(self, source: Path) -> None:
        images, _ = read(Loki(), source, "test")
        [problem] = Loki().check(list(images.values()), "test")
        assert problem == "every image is published with boxes, 2 have none, such as image/scenery/a.png"
        assert Loki().check([images["image/scenery/b.png"]], "test") == []


class TestSynthScars:
    TRIANGLE = [202.9, 146.0, 188.6, 152.8, 191.2, 175.5]

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        def entry(name: str, file_name: str, *references: dict[str, Any]) -> dict[str, Any]:
            caption = (
                "Upon examining the image. I have found: A man.\nTo elaborate, I have found the following artifacts. "
            )
            return {name: {"caption": caption, "img_file_name": file_name, "refs": list(references)}}

        def reference(sentence: str, explanation: str, *polygons: Any) -> dict[str, Any]:
            return {"sentence": sentence, "explanation": explanation, "bbox": None, "segmentation": list(polygons)}

        entries = [
            entry(
                "1172",
                "ef11.jpg",
                reference("Man's right ear.", "The ear is at an incorrect angle.", self.TRIANGLE),
                reference("man's eyes", "", [243.4, 132.2, 256.0000000001, 130.8, 250, 142]),
            ),
            entry(
                "317",
                "ef11.jpg",
                reference("line", "flat", [1, 1, 2, 2, 3, 3]),
                reference("leg", "bent", self.TRIANGLE),
            ),
            entry("9", "none.jpg"),
            entry("10", "gone.jpg", reference("leg", "bent", self.TRIANGLE)),
            entry("11", "ef11.jpg", {"sentence": "leg", "explanation": "bent"}),
            entry("12", "ef11.jpg", reference("leg", "bent", [1, None, 3])),
            entry("13", "/etc/hosts", reference("leg", "bent", self.TRIANGLE)),
            {"14": {}, "15": {}},
        ]
        for name in ("ef11.jpg", "none.jpg"):
            write(tmp_path / "test" / "images" / name, encode("JPEG", size=(256, 200)))
        write(tmp_path / "test" / "annotations" / "test.json", entries)
        return tmp_path

    def test_every_field(self, source: Path) -> None:
        images, _ = read(SynthScars(), source, "test")
        assert list(images) == ["1172", "317", "9"]
        image = images["1172"]
        assert image.image == encode("JPEG", size=(256, 200)) and image.size == (256, 200)
        assert image.has_artifact is True
        assert [region.shape for region in image.regions] == ["polygon", "polygon"]
        assert [region.polygons for region in image.regions] == [
            (tuple(self.TRIANGLE),),
            ((243.4, 132.2, 256.0000000001, 130.8, 250, 142),),
        ]
        assert [region.bbox for region in image.regions] == [(188.6, 146, 202.9, 175.5), (243.4, 130.8, 256, 142)]
        assert [region.caption for region in image.regions] == ["The ear is at an incorrect angle.", ""]
        assert image.explanation.startswith("Upon examining") and image.explanation.endswith("artifacts.")
        assert image.caption == ""
        assert image.metadata == {"img_file_name": "ef11.jpg", "phrases": ["Man's right ear.", "man's eyes"]}

    def test_two_annotations_of_one_image_are_two_records(self, source: Path) -> None:
        images, _ = read(SynthScars(), source, "test")
        assert images["317"].metadata["img_file_name"] == images["1172"].metadata["img_file_name"]
        assert [region.caption for region in images["317"].regions] == ["bent"]
        assert images["317"].metadata["skipped_regions"] == [0]

    def test_an_image_without_regions_is_unknown_and_reported(self, source: Path) -> None:
        images, _ = read(SynthScars(), source, "test")
        assert images["9"].has_artifact is None
        problems = SynthScars().check(list(images.values()), "test")
        assert problems == ["every image is published with artifacts, 1 have none, such as 9"]

    def test_every_reason(self, source: Path) -> None:
        _, skipped = read(SynthScars(), source, "test")
        assert skipped == {
            "317#0": "the 3 points of a polygon lie on one line",
            "10": "the image gone.jpg is missing",
            "11": "'segmentation' must be a list, got None",
            "12": "a polygon of 'segmentation' must be a list of numbers, got [1, None, 3]",
            "13": "the path of the image, '/etc/hosts', leads out of its folder, and no file of its name is in it",
            "entry 7": "an entry must be an object of one annotation, by its id",
        }

    def test_a_split_that_is_not_there_gets_the_instructions(self, source: Path) -> None:
        with pytest.raises(BenchmarkError, match="train.json") as error:
            list(SynthScars().read(source, "train"))
        assert SynthScars.instructions in str(error.value)


class TestSynArtifact:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        data = tmp_path / "data"

        def add(path: str, artifacts: Any, other: str = "None", **changes: Any) -> None:
            folder, _, name = path.split("/")
            annotation = {
                "Model Type": "Stable Diffusion 2.1-v",
                "Dataset": "COCO2017",
                "Prompt": "a person riding a skate board ",
                "Image path": path,
                "Artifacts annotation": artifacts,
                "Other artifacts caption": other,
                "T2I misalignment caption": "None",
                "Aesthetics score": 0.5,
                **changes,
            }
            write(data / path, encode({"jpg": "JPEG", "webp": "WEBP"}.get(name.rpartition(".")[2], "PNG")))
            write(data / folder / "annotation_json_artifacts_class" / f"{Path(name).stem}.json", annotation)

        def artifact(start: list[int], end: list[int], number: Any, caption: str = "odd") -> dict[str, Any]:
            return {"rect_start": start, "rect_end": end, "artifacts_caption": caption, "artifacts_class": number}

        add(
            "sub_data_1/images/000000007.png",
            [
                artifact([4, 0], [14, 10], "2", "abnormal hands"),
                artifact([30, 20], [10, 12], 11),
                artifact([20, 5], [40, 9], "0"),
            ],
        )
        add("sub_data_0/images/000000068.webp", [])
        add("sub_data_0/images/000000306.jpg", [], other="The whole image is too blurred.")
        add("sub_data_2/images/000000001.png", [artifact([3, 3], [3, 9], "4")])
        add("sub_data_2/images/000000002.png", [artifact([1, 1], [3, 9], "13")])
        add(
            "sub_data_2/images/000000003.png",
            [artifact([1, 1], [3, 9], "4")],
            **{"Image path": "sub_data_2/images/4.png"},
        )
        add("sub_data_2/images/000000005.png", [{"rect_start": [1, 1], "artifacts_class": "2"}])
        add("sub_data_2/images/000000006.png", [])
        write(data / "sub_data_2" / "annotation_json_artifacts_class" / "000000006.json", '{"Model Type": ')
        write(data / "sub_data_2" / "images" / "000000008.png", encode())
        add("sub_data_4/images/000000009.png", [])
        lines = [
            "sub_data_1/images/000000007.png",
            "sub_data_0/images/000000068.webp",
            "sub_data_0/images/000000306.jpg",
            *(f"sub_data_2/images/00000000{number}.png" for number in (1, 2, 3, 5, 6, 8)),
            "sub_data_3/images/000000844.png",
        ]
        write(data / "eval.txt", "\n".join(lines) + "\n")
        write(data / "train.txt", "sub_data_4/images/000000009.png\n")
        return tmp_path

    def test_every_field(self, source: Path) -> None:
        images, _ = read(SynArtifact(), source, "test")
        assert list(images) == [
            "sub_data_1/000000007",
            "sub_data_0/000000068",
            "sub_data_0/000000306",
            "sub_data_2/000000001",
        ]
        image = images["sub_data_1/000000007"]
        assert image.image == encode() and image.size == SIZE and image.has_artifact is True
        assert [region.bbox for region in image.regions] == [(4, 0, 14, 10), (10, 12, 30, 20), (20, 5, 32, 9)]
        assert [region.name for region in image.regions] == [
            "Distorted and deformed components",
            "Localized blur",
            "Illegible letters",
        ]
        assert [region.caption for region in image.regions] == ["abnormal hands", "odd", "odd"]
        assert image.caption == "a person riding a skate board" and image.explanation == ""
        assert image.metadata == {
            "Model Type": "Stable Diffusion 2.1-v",
            "Dataset": "COCO2017",
            "T2I misalignment caption": "None",
            "Aesthetics score": 0.5,
            "clipped_boxes": {"2": [20, 5, 40, 9]},
        }

    def test_clean_artifact_and_unknown(self, source: Path) -> None:
        images, _ = read(SynArtifact(), source, "test")
        clean, described, empty_box = list(images.values())[1:]
        assert clean.has_artifact is False and clean.regions == () and clean.explanation == ""
        assert described.has_artifact is None and described.explanation == "The whole image is too blurred."
        assert empty_box.has_artifact is True and empty_box.regions == ()

    def test_every_reason(self, source: Path) -> None:
        _, skipped = read(SynArtifact(), source, "test")
        broken = skipped.pop("sub_data_2/000000006")
        assert broken.startswith("000000006.json is not JSON: ")
        assert skipped == {
            "sub_data_2/000000001#0": "the box [3.0, 3.0, 3.0, 9.0] has no area in an image of 32 × 24",
            "sub_data_2/000000002": "'artifacts_class' must be 0 to 12, got '13'",
            "sub_data_2/000000003": "the annotation is of another image, sub_data_2/images/4.png",
            "sub_data_2/000000005": "'rect_end' must be a list, got None",
            "sub_data_2/000000008": "the file 000000008.json is missing",
            "sub_data_3/000000844": "the image sub_data_3/images/000000844.png is missing",
        }

    def test_splits_are_the_lists(self, source: Path) -> None:
        assert list(read(SynArtifact(), source, "train")[0]) == ["sub_data_4/000000009"]

    def test_the_metrics_know_every_class(self) -> None:
        names = [_class_name(number) for number in range(13)]
        assert [find_class(name) for name in names] == list(CLASSES[:13])

    def test_a_list_of_something_else_says_what_differs(self, source: Path) -> None:
        write(source / "data" / "eval.txt", "images/1.png\n")
        with pytest.raises(BenchmarkError, match="must list paths such as .* got 'images/1.png'"):
            list(SynArtifact().read(source, "test"))


class TestPal4Vst:
    @staticmethod
    def label(values: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(values).save(buffer, format="PNG")
        return buffer.getvalue()

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        values = np.zeros(SIZE[::-1], np.uint8)
        values[3:7, 10:20] = 1
        values[5, 25] = 1
        mixed = values.copy()
        mixed[0, 0] = 255
        labels = {
            "ldm/a": self.label(values),
            "ldm/clean": self.label(np.zeros_like(values)),
            "ldm/unlabelled": None,
            "stylegan2/a": self.label(values * 255),
            "stylegan2/colour": self.label(np.stack([values] * 3, axis=-1)),
            "stylegan2/mixed": self.label(mixed),
            "stylegan2/small": self.label(values[:10]),
            "stylegan2/torn": b"not an image",
        }
        for name, label in labels.items():
            task, stem = name.split("/")
            write(tmp_path / task / "images" / "test" / f"{stem}.jpg", encode("JPEG"))
            if label is not None:
                write(tmp_path / task / "labels" / "test" / f"{stem}.png", label)
        write(tmp_path / "ldm" / "labels" / "test" / "orphan.png", labels["ldm/a"] or b"")
        write(tmp_path / "ldm" / "images" / "test" / "notes.txt", "x")
        write(tmp_path / "ldm" / "images" / "test" / ".DS_Store", "x")
        return tmp_path

    def test_every_field(self, source: Path) -> None:
        images, _ = read(Pal4Vst(), source, "test")
        assert list(images) == ["ldm/a.jpg", "ldm/clean.jpg", "stylegan2/a.jpg"]
        image = images["ldm/a.jpg"]
        assert image.image == encode("JPEG") and image.size == SIZE and image.has_artifact is True
        [region] = image.regions
        assert (region.shape, region.bbox, region.name, region.caption) == ("mask", (10, 3, 26, 7), "bad_region", "")
        assert region.mask is not None and region.mask.dtype == bool and region.mask.sum() == 41
        assert region.mask[3:7, 10:20].all() and region.mask[5, 25]
        assert (image.caption, image.explanation, image.metadata) == ("", "", {"task": "ldm"})

    def test_values_of_255_mean_the_same(self, source: Path) -> None:
        images, _ = read(Pal4Vst(), source, "test")
        of_255, of_1 = images["stylegan2/a.jpg"].regions[0].mask, images["ldm/a.jpg"].regions[0].mask
        assert of_255 is not None and of_1 is not None and np.array_equal(of_255, of_1)

    def test_an_empty_map_is_a_clean_image(self, source: Path) -> None:
        images, _ = read(Pal4Vst(), source, "test")
        assert images["ldm/clean.jpg"].has_artifact is False and images["ldm/clean.jpg"].regions == ()

    def test_every_reason(self, source: Path) -> None:
        _, skipped = read(Pal4Vst(), source, "test")
        assert skipped == {
            "ldm/notes.txt": "expected an image (.jpg, .jpeg, .png), got notes.txt",
            "ldm/unlabelled.jpg": "the label map unlabelled.png is missing",
            "ldm/orphan.png": "a label map without an image",
            "stylegan2/colour.jpg": "the label map must have one channel, got 3",
            "stylegan2/mixed.jpg": "the label map must hold 0 and 1, or 0 and 255, got [0, 1, 255]",
            "stylegan2/small.jpg": "the label map is 32 × 10, its image 32 × 24",
            "stylegan2/torn.jpg": "the label map torn.png is no image",
        }

    def test_a_task_without_labels_says_so(self, source: Path) -> None:
        write(source / "ldm" / "images" / "val" / "a.jpg", encode("JPEG"))
        with pytest.raises(BenchmarkError, match="must have a folder of labels"):
            list(Pal4Vst().read(source, "val"))


class TestXAigd:
    @staticmethod
    def row(uid: str, labels: Any, **changes: Any) -> dict[str, Any]:
        return {
            "image": {"bytes": encode(), "path": f"{uid}.png"},
            "generator": "FLUX.1-dev",
            "uid": uid,
            "labels": labels,
            "original_prompt": "a cat",
            "negative_prompt": None,
            "guidance_scale": float("nan"),
            "seed": 7,
            "width": SIZE[0],
            "height": SIZE[1],
            **changes,
        }

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        triangle = [[1.5, 2.0], [9.0, 2.0], [9.0, 8.25]]
        rows = [
            self.row(
                "1",
                [
                    {"label": "low-level-texture", "points": triangle},
                    {"label": "high-level-semantics", "points": [[20, 10], [33, 10], [20, 24], [18, 12]]},
                ],
            ),
            self.row("2", []),
            self.row("3", None),
            self.row("4", [{"label": "low-level-texture", "points": triangle[:2]}]),
            self.row("5", [{"label": "low-level-text", "points": triangle}]),
            self.row("6", [{"label": "low-level-texture", "points": [[1.0]] * 3}]),
            self.row("7", [], width=64),
            self.row("8", [], image=None),
        ]
        (tmp_path / "data").mkdir()
        schema = pa.Table.from_pylist(rows[:1]).schema.set(5, pa.field("negative_prompt", pa.string()))
        for shard, part in enumerate((rows[:4], rows[4:])):
            path = tmp_path / "data" / f"labeled_test-{shard:05d}-of-00002.parquet"
            pq.write_table(pa.Table.from_pylist(part, schema), path)
        other = [self.row("1", [{"label": "low-level-color", "points": triangle}], generator="PixArt")]
        pq.write_table(pa.Table.from_pylist(other), tmp_path / "data" / "labeled_train-00000-of-00001.parquet")
        return tmp_path

    def test_every_field(self, source: Path) -> None:
        images, _ = read(XAigd(), source, "labeled_test")
        assert list(images) == [f"FLUX.1-dev/{uid}" for uid in "1234"]
        image = images["FLUX.1-dev/1"]
        assert image.image == encode() and image.size == SIZE and image.has_artifact is True
        first, second = image.regions
        assert (first.shape, first.name, first.caption) == ("polygon", "low-level-texture", "")
        assert first.polygons == ((1.5, 2, 9, 2, 9, 8.25),) and first.bbox == (1.5, 2, 9, 8.25)
        assert second.name == "high-level-semantics"
        assert second.polygons == ((20, 10, 33, 10, 20, 24, 18, 12),) and second.bbox == (18, 10, 32, 24)
        assert image.caption == "a cat" and image.explanation == ""
        assert image.metadata == {
            "generator": "FLUX.1-dev",
            "uid": "1",
            "negative_prompt": None,
            "guidance_scale": None,
            "seed": 7,
        }

    def test_an_empty_list_is_clean_and_no_list_unknown(self, source: Path) -> None:
        images, _ = read(XAigd(), source, "labeled_test")
        assert images["FLUX.1-dev/2"].has_artifact is False
        assert images["FLUX.1-dev/3"].has_artifact is None
        assert images["FLUX.1-dev/4"].has_artifact is True and images["FLUX.1-dev/4"].regions == ()

    def test_every_reason(self, source: Path) -> None:
        _, skipped = read(XAigd(), source, "labeled_test")
        unknown = skipped.pop("FLUX.1-dev/5")
        assert unknown.startswith("'label' must be one of low-level-edge_shape, ")
        assert unknown.endswith("got 'low-level-text'")
        assert skipped == {
            "FLUX.1-dev/4#0": "a polygon must be x and y of 3 points or more, got 4 numbers",
            "FLUX.1-dev/6": "a point of 'points' must be 2 numbers, got 1",
            "FLUX.1-dev/7": "the image is 32 × 24, its row says 64 × 24",
            "FLUX.1-dev/8": "the row holds no image",
        }

    def test_splits_are_the_files(self, source: Path) -> None:
        assert list(read(XAigd(), source, "labeled_train")[0]) == ["PixArt/1"]

    def test_other_columns_say_what_differs(self, source: Path) -> None:
        path = source / "data" / "labeled_train-00000-of-00001.parquet"
        pq.write_table(pq.read_table(path).drop_columns(["labels", "uid"]), path)
        with pytest.raises(BenchmarkError, match="lacks uid, labels and has image, generator, original_prompt"):
            list(XAigd().read(source, "labeled_train"))


class TestReadImage:
    def test_an_absolute_path_of_another_machine_is_looked_up_by_its_file_name(self, tmp_path: Path) -> None:
        write(tmp_path / "images" / "deep" / "a.png", encode())
        assert read_image(tmp_path / "images", "/cluster/set/a.png") == (encode(), SIZE)
        write(tmp_path / "images" / "a.png", encode())
        with pytest.raises(RecordError, match="leads out of its folder, and 2 files of its name are in it"):
            read_image(tmp_path / "images", "/cluster/set/a.png")

    def test_a_snapshot_of_the_hub_links_to_its_blobs(self, tmp_path: Path) -> None:
        write(tmp_path / "repo" / "blobs" / "0a1b", encode())
        folder = tmp_path / "repo" / "snapshots" / "abc" / "images"
        folder.mkdir(parents=True)
        (folder / "a.png").symlink_to(tmp_path / "repo" / "blobs" / "0a1b")
        assert read_image(folder, "a.png") == (encode(), SIZE)

    def test_long_names_and_links_that_lead_out_are_reasons(self, tmp_path: Path) -> None:
        write(tmp_path / "secret.png", encode())
        write(tmp_path / "images" / "a.png", encode())
        (tmp_path / "images" / "out.png").symlink_to(tmp_path / "secret.png")
        (tmp_path / "images" / "in.png").symlink_to("a.png")
        assert read_image(tmp_path / "images", "in.png") == (encode(), SIZE)
        for name, reason in (
            ("out.png", "is a link that leads out"),
            ("x" * 300 + ".png", "cannot be read: File name"),
        ):
            with pytest.raises(RecordError, match=reason):
                read_image(tmp_path / "images", name)


def test_reasons_are_counted_with_five_examples_of_each() -> None:
    gone = [Skipped(f"entry {n}", f"the path of the image, '/cluster/{n}.png', leads out") for n in range(119)]
    summary = skipped_summary((*gone, Skipped("x", "the row holds no image")))
    assert summary == (
        "120 left out: 119 × the path of the image, '/cluster/0.png', leads out "
        "(entry 0, entry 1, entry 2, entry 3, entry 4, …); 1 × the row holds no image (x)"
    )
