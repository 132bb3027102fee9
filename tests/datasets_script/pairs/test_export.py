"""Pairs as COCO, WebDataset and ShareGPT, read back by what their users read them with."""

from __future__ import annotations

import io
import json
import math
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
import yaml
from datasets import load_dataset
from PIL import Image, UnidentifiedImageError
from pycocotools import mask as rle
from pycocotools.coco import COCO
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from datasets_script.cli.main import build_parser
from datasets_script.pairs.export.common import INFO_FILE, ExportSettings
from datasets_script.pairs.export.export_pairs import export_pairs
from datasets_script.pairs.export.formats import FORMATS
from datasets_script.pairs.export.sharegpt import TrainerBoxFormat
from datasets_script.pairs.storage import find_shards, read_rows
from datasets_script.pairs.views.vqa import vqa_rows
from datasets_script.schema.features import NOISE_COLUMNS
from datasets_script.utils.errors import UserError
from datasets_script.utils.stored_arrays import read_array
from datasets_script.vlm.conventions import BoxFormat
from diffusers_artifact.mapping import ARTIFACT_TYPES
from tests.helpers.made_pairs import HEIGHT, RUN, WIDTH, make_pair, write_run


@pytest.fixture(scope="module")
def pairs():
    # As of two merged runs, one of which stores noise.
    return [make_pair(index, with_noise=index < 3) for index in range(5)]


@pytest.fixture(scope="module")
def out(tmp_path_factory, pairs):
    return write_run(tmp_path_factory.mktemp("run") / "out", pairs, license="cc-by-4.0")


@pytest.fixture(scope="module")
def stored(out):
    return list(read_rows(find_shards(out)))


def export(out, dest, *options):
    parser = build_parser()
    args = parser.parse_args(["export", str(out), str(dest), *options])
    assert args.run(args) == 0
    return dest


def test_coco_reads_back(out, tmp_path, pairs, stored, capsys):
    dest = export(out, tmp_path / "coco", "--format", "coco")
    assert "5 pairs" in capsys.readouterr().out
    coco = COCO(str(dest / "annotations.json"))
    names = {category["id"]: category["name"] for category in coco.loadCats(coco.getCatIds())}
    assert tuple(names.values()) == ARTIFACT_TYPES
    images = coco.loadImgs(coco.getImgIds())
    assert len(images) == 2 * len(pairs) == len({image["file_name"] for image in images})
    by_pair = {(image["pair_id"], image["side"]): image for image in images}
    for pair, row in zip(pairs, stored, strict=True):
        clean, flawed = by_pair[pair.pair_id, "clean"], by_pair[pair.pair_id, "flawed"]
        assert coco.getAnnIds(clean["id"]) == []
        assert (dest / "images" / clean["file_name"]).read_bytes() == row["clean"]["bytes"]
        assert (dest / "images" / flawed["file_name"]).read_bytes() == row["flawed"]["bytes"]
        assert (flawed["width"], flawed["height"]) == (WIDTH, HEIGHT)
        annotations = coco.loadAnns(coco.getAnnIds(flawed["id"]))
        for annotation, artifact in zip(annotations, pair.artifacts, strict=True):
            np.testing.assert_array_equal(coco.annToMask(annotation).astype(bool), artifact.mask)
            assert names[annotation["category_id"]] == artifact.type
            assert annotation["area"] == artifact.mask.sum()
            x, y, width, height = annotation["bbox"]
            assert (x, y, x + width, y + height) == artifact.bbox
            assert (annotation["label"], annotation["caption"]) == (artifact.label, artifact.explanation)
    assert coco.dataset["licenses"][0]["name"] == "cc-by-4.0"
    assert coco.dataset["info"]["runs"][0]["settings"] == RUN["settings"]


def test_webdataset_reads_back(out, tmp_path, pairs, stored):
    dest = export(out, tmp_path / "tars", "--format", "webdataset", "--shard-size", "2")
    tars = sorted(str(path) for path in dest.glob("*.tar"))
    assert len(tars) == 3
    samples = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [f"{index:08d}" for index in range(5)]
    for sample, pair, row in zip(samples, pairs, stored, strict=True):
        for name in ("source", "clean", "flawed"):
            assert sample[f"{name}.png"] == row[name]["bytes"]
        for name in NOISE_COLUMNS:
            assert sample.get(f"{name}.npy") == row[name]
            np.testing.assert_array_equal(read_array(row[name]), getattr(pair, name))
        record = json.loads(sample["json"])
        assert (record["pair_id"], record["explanation"]) == (pair.pair_id, pair.explanation)
        for written, artifact in zip(record["artifacts"], pair.artifacts, strict=True):
            np.testing.assert_array_equal(rle.decode(written["segmentation"]).astype(bool), artifact.mask)
            assert tuple(written["bbox"]) == artifact.bbox
            assert written["scores"] == artifact.scores and written["parameters"] == artifact.parameters


def test_preferences_read_back(out, tmp_path, pairs):
    dest = export(out, tmp_path / "preferences", "--format", "preference", "--shard-size", "2")
    rows = load_dataset(str(dest), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(list((dest / "data").iterdir())) == 3 and len(rows) == len(pairs)
    for row, pair in zip(rows, pairs, strict=True):
        assert (row["pair_id"], row["source_id"], row["prompt"]) == (pair.pair_id, pair.source_id, pair.caption)
        np.testing.assert_array_equal(row["chosen"], pair.clean)
        np.testing.assert_array_equal(row["rejected"], pair.flawed)
        union = np.logical_or.reduce([artifact.mask for artifact in pair.artifacts])
        np.testing.assert_array_equal(np.asarray(row["mask"]) == 255, union)
        np.testing.assert_array_equal(read_array(row["chosen_noise"]), pair.clean_noise)
        np.testing.assert_array_equal(read_array(row["rejected_noise"]), pair.flawed_noise)


def test_preferences_in_the_columns_of_pickapic_say_which_image_comes_first(out, tmp_path, pairs):
    dest = export(out, tmp_path / "dpo", "--format", "preference", "--preference-columns", "pickapic", "--seed", "1")
    rows = load_dataset(str(dest), split="train", cache_dir=str(tmp_path / "cache"))
    assert {row["label_0"] for row in rows} == {0.0, 1.0}
    for row, pair in zip(rows, pairs, strict=True):
        images = [Image.open(io.BytesIO(row[name])).convert("RGB") for name in ("jpg_0", "jpg_1")]
        preferred = images[0] if row["label_0"] == 1 else images[1]
        np.testing.assert_array_equal(preferred, pair.clean)
        assert row["caption"] == pair.caption
    info = json.loads((dest / INFO_FILE).read_text(encoding="utf-8"))
    assert info["export"]["preference_columns"] == "pickapic"


def test_equal_pairs_give_equal_tars(out, tmp_path):
    contents = []
    for name in ("one", "two"):
        export_pairs(str(out), tmp_path / name, "webdataset", show_progress=False)
        contents.append((tmp_path / name / "pairs-000000.tar").read_bytes())
    assert contents[0] == contents[1]


def read_sharegpt(folder, name):
    """As LLaMA-Factory documents its ShareGPT format: what a trainer with `dataset_dir=folder` would see."""
    description = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))[name]
    assert description["formatting"] == "sharegpt"
    columns = description["columns"]
    for sample in json.loads((folder / description["file_name"]).read_text(encoding="utf-8")):
        messages = sample[columns["messages"]]
        # Questions in odd positions, answers in even ones; an image for every tag.
        assert [message["from"] for message in messages] == ["human", "gpt"] * (len(messages) // 2)
        texts = [message["value"] for message in messages]
        assert sum(text.count("<image>") for text in texts) == len(sample[columns["images"]])
        yield texts, [Image.open(folder / path) for path in sample[columns["images"]]]


def test_sharegpt_reads_back(out, tmp_path, stored):
    options = ("--format", "sharegpt", "--coordinates", "qwen2.5", "--max-pixels", "78400", "--seed", "3")
    samples = read_sharegpt(export(out, tmp_path / "chat", *options), "artiagent")
    box_format = BoxFormat("qwen2.5", max_pixels=78400)
    views = [view for row in stored for view in vqa_rows(row, box_format, 3)]
    images = [row[side] for row in stored for side in ("clean", "flawed")]
    for (texts, (exported,)), image, view in zip(samples, images, views, strict=True):
        parts = [part["text"] for message in view["messages"] for part in message["content"] if part["text"]]
        assert texts[0] == f"<image>{parts[0]}" and texts[1:] == parts[1:]
        np.testing.assert_array_equal(np.asarray(exported), np.asarray(Image.open(io.BytesIO(image["bytes"]))))


@pytest.mark.parametrize("size", [(512, 512), (1024, 576), (1024, 768), (1024, 1024), (1023, 777)])
@pytest.mark.parametrize("coordinates", ["pixel", "qwen2.5", "qwen3"])
@pytest.mark.parametrize("limit", [768 * 768, 500_000, None])
def test_boxes_are_those_of_the_picture_that_the_trainer_makes(size, coordinates, limit):
    width, height = size
    shrink = min(1.0, math.sqrt((limit or math.inf) / (width * height)))
    made = (int(width * shrink), int(height * shrink))
    seen = smart_resize(*made[::-1], 28, 56 * 56, 28 * 28 * 16384)[::-1]
    whole = {"pixel": made, "qwen2.5": seen, "qwen3": (1000, 1000)}[coordinates]
    box_format = TrainerBoxFormat(coordinates, trainer_max_pixels=limit)
    written = json.loads(box_format((width / 4, height / 4, width * 3 / 4, height * 3 / 4), size))
    expected = [side * part for part in (0.25, 0.75) for side in whole]
    assert box_format.shrunk(size) == made and written == pytest.approx(expected, abs=1)


def test_the_trainer_and_its_limit_are_applied_and_on_record(out, tmp_path):
    texts = {}
    for name, options in {
        "default": (),
        "small": ("--trainer-max-pixels", "10000"),
        "other": ("--trainer", "other"),
    }.items():
        folder = export(out, tmp_path / name, "--format", "sharegpt", *options)
        recorded = json.loads((folder / INFO_FILE).read_text(encoding="utf-8"))["export"]
        texts[name] = (folder / "data.json").read_text(encoding="utf-8")
        expected = {
            "default": ("llama-factory", 768 * 768),
            "small": ("llama-factory", 10000),
            "other": ("other", None),
        }
        assert (recorded["trainer"], recorded["trainer_max_pixels"]) == expected[name]
    assert texts["default"] == texts["other"] != texts["small"]
    with pytest.raises(UserError, match="`trainer_max_pixels` must not be set with the trainer 'other'"):
        export(out, tmp_path / "both", "--format", "sharegpt", "--trainer", "other", "--trainer-max-pixels", "9")


@pytest.mark.parametrize("name", FORMATS)
def test_settings_versions_and_seeds_are_on_record(out, tmp_path, name):
    export_pairs(str(out), tmp_path / name, name, ExportSettings(BoxFormat("qwen3"), seed=5), show_progress=False)
    info = json.loads((tmp_path / name / INFO_FILE).read_text(encoding="utf-8"))
    assert info["format"] == name and info["license"] == "cc-by-4.0"
    assert info["export"]["seed"] == 5 and info["export"]["box_format"]["coordinates"] == "qwen3"
    assert info["versions"]["datasets"] and info["runs"] == [RUN]


def test_a_folder_in_use_is_refused_and_an_empty_one_taken(out, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="must be missing or empty"):
        export_pairs(str(out), tmp_path / "mine", "coco", show_progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    (tmp_path / "empty").mkdir()
    export_pairs(str(out), tmp_path / "empty", "coco", show_progress=False)
    assert (tmp_path / "empty" / "annotations.json").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_a_failed_export_leaves_nothing(out, tmp_path, name):
    broken = shutil.copytree(out, tmp_path / "broken")
    path = broken / "data" / "pairs-00001.parquet"
    rows = pq.read_table(path).to_pylist()
    # Not every format reads both.
    rows[-1]["artifacts"][0]["mask"]["bytes"] = rows[-1]["flawed"]["bytes"] = b"no image"
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(path)), path)
    with pytest.raises(UnidentifiedImageError):
        export_pairs(str(broken), tmp_path / name, name, show_progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_what_a_killed_export_has_left_is_no_obstacle(out, tmp_path):
    (tmp_path / "coco.incomplete" / "images").mkdir(parents=True)
    (tmp_path / "coco.incomplete" / "images" / "old.png").write_text("x")
    export_pairs(str(out), tmp_path / "coco", "coco", show_progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["coco"]
    assert not (tmp_path / "coco" / "images" / "old.png").exists()


def test_mistakes_of_the_command_line(out, tmp_path):
    with pytest.raises(UserError, match="--shard-size"):
        export(out, tmp_path / "tars", "--format", "webdataset", "--shard-size", "0")
    with pytest.raises(UserError, match="min_pixels must be above 0 and at most max_pixels, got 3136 and 0"):
        export(out, tmp_path / "chat", "--format", "sharegpt", "--coordinates", "qwen2.5", "--max-pixels", "0")
    with pytest.raises(UserError, match=r"run\.json"):
        export(tmp_path, tmp_path / "coco", "--format", "coco")


def test_the_help_names_formats_and_coordinates(capsys):
    parser = build_parser()
    with pytest.raises(SystemExit):
        parser.parse_args(["export", "--help"])
    text = capsys.readouterr().out
    for word in (*FORMATS, "qwen2.5", "internvl", "examples:"):
        assert word in text


def test_yolo_has_a_line_for_each_artifact_and_empty_files_for_clean_images(out, tmp_path, pairs):
    dest = export(out, tmp_path / "yolo", "--format", "yolo")
    names = yaml.safe_load((dest / "data.yaml").read_text())["names"]
    assert tuple(names[number] for number in range(len(names))) == ARTIFACT_TYPES
    assert {path.stem for path in (dest / "labels").iterdir()} == {path.stem for path in (dest / "images").iterdir()}
    for index, pair in enumerate(pairs):
        assert (dest / "labels" / f"{index:08d}_clean.txt").read_text() == ""
        lines = (dest / "labels" / f"{index:08d}_flawed.txt").read_text().splitlines()
        for line, artifact in zip(lines, pair.artifacts, strict=True):
            kind, *numbers = line.split()
            x, y, width, height = map(float, numbers)
            box = (
                (x - width / 2) * WIDTH,
                (y - height / 2) * HEIGHT,
                (x + width / 2) * WIDTH,
                (y + height / 2) * HEIGHT,
            )
            assert names[int(kind)] == artifact.type and box == pytest.approx(artifact.bbox, abs=1e-3)
