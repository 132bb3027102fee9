"""The builder of the dataset of pairs: its configs, splits, streaming, processes, and sources that are none."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Image as ImageFeature
from datasets import List, load_dataset
from huggingface_hub import DatasetCard
from PIL import Image

from datasets_script.benchmarks.loading import load_benchmark
from datasets_script.benchmarks.prepare import prepare
from datasets_script.pairs.builder import ArtiAgentPairs, PairsConfig
from datasets_script.pairs.configurations import CONFIGURATIONS, NAMES, configurations_table
from datasets_script.pairs.image_files import ImageFiles
from datasets_script.pairs.named_images import card_config
from datasets_script.pairs.prepare import prepare_pairs_folder
from datasets_script.pairs.storage import find_shards, split_of
from datasets_script.schema.features import PAIR_FEATURES, row_to_pair
from datasets_script.schema.image import BENCHMARK_FEATURES
from datasets_script.utils.errors import UserError
from diffusers_artifact.mapping import ARTIFACT_TYPES
from tests.helpers.made_pairs import HEIGHT, WIDTH, make_pair, write_run

from ...helpers.local_hub import LocalHub
from ...helpers.paths import ROOT


CARD = ROOT / "hub_cards" / "datasets" / "artiagent.md"
CONFIGS = ("pairs", "images", "vqa", "masks", "instructions", "comparisons")


@pytest.fixture(scope="module")
def pairs():
    # Two pairs of one photo, which must stay together.
    return [make_pair(index, source_id=f"photo{index // 2}.png") for index in range(6)]


@pytest.fixture(scope="module")
def out(tmp_path_factory, pairs):
    return write_run(tmp_path_factory.mktemp("run") / "out", pairs)


@pytest.fixture(scope="module")
def stored(out):
    return [row for path in sorted((out / "data").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def build(out, cache, config="pairs", num_proc=None, **options):
    builder = ArtiAgentPairs(config_name=config, source=str(out), cache_dir=str(cache), **options)
    builder.download_and_prepare(num_proc=num_proc)
    return builder.as_dataset()


def undecoded(rows):
    """Rows with the bytes of their images, whether they hold them or name a file."""
    for name, feature in rows.features.items():
        if isinstance(feature, ImageFeature):
            rows = rows.cast_column(name, ImageFeature(decode=False, mode=feature.mode))
        elif name == "images":
            rows = rows.cast_column(name, List(ImageFeature(decode=False, mode="RGB")))
    return [{name: with_bytes(value) for name, value in row.items()} for row in rows]


def with_bytes(value):
    if isinstance(value, list):
        return [with_bytes(item) for item in value]
    if not (isinstance(value, dict) and value.keys() == {"bytes", "path"}):
        return value
    # Of each image either is stored, never both.
    assert (value["bytes"] is None) != (value["path"] is None)
    return {"bytes": value["bytes"] or Path(value["path"]).read_bytes()}


def test_pairs_are_as_written(out, tmp_path, stored, pairs):
    rows = build(out, tmp_path)["train"]
    assert rows.features == PAIR_FEATURES
    assert [row["pair_id"] for row in rows] == [pair.pair_id for pair in pairs]
    for row, pair in zip(rows, pairs, strict=True):
        read = row_to_pair(row)
        np.testing.assert_array_equal(np.asarray(read.flawed), np.asarray(pair.flawed))
        assert [artifact.label for artifact in read.artifacts] == [artifact.label for artifact in pair.artifacts]
    for row, other in zip(undecoded(rows), stored, strict=True):
        assert row["clean"]["bytes"] == other["clean"]["bytes"]
        assert row["source"]["bytes"] == other["source"]["bytes"]


def test_images_are_a_benchmark(out, tmp_path, stored):
    rows = build(out, tmp_path, "images")["train"]
    assert rows.features == BENCHMARK_FEATURES
    assert len(set(rows["id"])) == len(rows) == 2 * len(stored)
    encoded = undecoded(rows)
    for index, pair in enumerate(stored):
        clean, flawed = rows[2 * index], rows[2 * index + 1]
        assert (clean["id"], flawed["id"]) == (f"{pair['pair_id']}#clean", f"{pair['pair_id']}#flawed")
        assert (clean["has_artifact"], clean["regions"], clean["explanation"]) == (False, [], "")
        assert flawed["has_artifact"] and flawed["explanation"] == pair["explanation"]
        assert (clean["width"], clean["height"]) == (WIDTH, HEIGHT) == clean["image"].size
        assert encoded[2 * index]["image"]["bytes"] == pair["clean"]["bytes"]
        assert encoded[2 * index + 1]["image"]["bytes"] == pair["flawed"]["bytes"]
        for region, artifact in zip(flawed["regions"], pair["artifacts"], strict=True):
            assert (region["shape"], region["class"], region["bbox"]) == ("mask", artifact["type"], artifact["bbox"])
            assert region["caption"] == artifact["explanation"]
            expected = Image.open(io.BytesIO(artifact["mask"]["bytes"]))
            np.testing.assert_array_equal(np.asarray(region["mask"]), np.asarray(expected))


def test_pairs_can_be_scored_on_without_preparing_them(out, pairs):
    for image, pair in zip([*load_benchmark(out)][1::2], pairs, strict=True):
        assert image.id == f"{pair.pair_id}#flawed" and image.size == (WIDTH, HEIGHT)
        for region, artifact in zip(image.regions, pair.artifacts, strict=True):
            assert region.bbox == artifact.bbox and region.name == artifact.type
            np.testing.assert_array_equal(region.mask, artifact.mask)


def test_the_card_loads_what_it_tells_to_write(carded, tmp_path):
    folder = tmp_path / "artiagent"
    names = [entry["config_name"] for entry in DatasetCard.load(CARD).data.configs]
    prepare_pairs_folder(carded, folder, names)
    shutil.copy(CARD, folder / "README.md")
    for config in names:
        rows = load_dataset(str(folder), config, split="train", cache_dir=str(tmp_path / "cache"))
        assert rows.features == PairsConfig(name=config).features
        # Of six pairs: one row each, one an image, or one an image and task.
        assert len(rows) == {"pairs": 6, "comparisons": 6, "instructions": 36}.get(config, 12)


def test_the_configurations_have_one_description():
    assert NAMES == CONFIGS == tuple(ArtiAgentPairs.builder_configs)
    assert configurations_table() in CARD.read_text()
    assert DatasetCard.load(CARD).data.configs == [
        card_config(item.name, PairsConfig(name=item.name).features, ["train"], item.shows, item.name == "pairs")
        for item in CONFIGURATIONS
    ]
    for item in CONFIGURATIONS:
        assert item.row in ArtiAgentPairs.builder_configs[item.name].description


def test_a_prepared_folder_gives_every_config_under_the_card_of_the_run(carded, tmp_path):
    folder = tmp_path / "set"
    prepared = prepare_pairs_folder(carded, folder, CONFIGS, coordinates="qwen3", test_share=0.5)
    for config in CONFIGS:
        loaded = load_dataset(str(folder), config, cache_dir=str(tmp_path / "cache"))
        assert {split: rows.num_rows for split, rows in loaded.items()} == prepared[config]
    assert load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))["train"].features == PAIR_FEATURES
    assert [image.id for image in load_benchmark(folder, "train")] == load_dataset(
        str(folder), "images", cache_dir=str(tmp_path / "cache"), split="train"
    )["id"][:]
    card = DatasetCard.load(folder / "README.md")
    assert card.data.license == "cc0-1.0" and "# Pairs of cats and dogs" in card.text
    assert "in the convention `qwen3`: thousandths of width and height." in card.text
    assert json.loads((folder / "prepared.json").read_text())["options"] == {
        "coordinates": "qwen3",
        "test_share": 0.5,
    }
    rows = [f"{config}-{split}.parquet" for config in CONFIGS for split in ("train", "test")]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["README.md", "prepared.json", "run.json", "images", "sources", "masks", *rows]
    )
    with pytest.raises(FileExistsError):
        prepare_pairs_folder(carded, folder, CONFIGS)


@pytest.fixture(scope="module")
def carded(out):
    (out / "README.md").write_text("---\nlicense: cc0-1.0\n---\n\n# Pairs of cats and dogs\n")
    return out


@pytest.fixture(scope="module")
def prepared(carded, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "set"
    prepare_pairs_folder(carded, folder, CONFIGS, coordinates="qwen3", test_share=0.5, seed=1)
    return folder


def shown(rows):
    """Rows with their images decoded, comparable."""
    return [{name: pixels(value) for name, value in row.items()} for row in rows]


def pixels(value):
    if isinstance(value, Image.Image):
        return value.mode, value.size, value.tobytes()
    if isinstance(value, list):
        return [pixels(item) for item in value]
    return {name: pixels(item) for name, item in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("config", CONFIGS)
def test_a_prepared_folder_gives_the_rows_of_the_builder(out, prepared, tmp_path, config):
    expected = build(out, tmp_path / "built", config, coordinates="qwen3", test_share=0.5, seed=1)
    loaded = load_dataset(str(prepared), config, cache_dir=str(tmp_path / "loaded"))
    streamed = load_dataset(str(prepared), config, cache_dir=str(tmp_path / "loaded"), streaming=True)
    assert list(loaded) == list(streamed) == ["train", "test"]
    for split, rows in expected.items():
        assert loaded[split].features == streamed[split].features == rows.features
        assert shown(rows) == shown(loaded[split]) == shown(streamed[split])


def test_a_prepared_folder_is_the_same_however_many_processes_write_it(carded, tmp_path):
    contents = []
    for num_proc in (1, 2):
        folder = tmp_path / str(num_proc)
        prepare_pairs_folder(carded, folder, CONFIGS, num_proc)
        files = [path for path in folder.rglob("*") if path.is_file()]
        contents.append({path.relative_to(folder): path.read_bytes() for path in files})
    assert contents[0] == contents[1]


def test_a_prepared_folder_is_a_source_of_pairs(out, prepared, tmp_path):
    files = [str(prepared / f"pairs-{split}.parquet") for split in ("train", "test")]
    rows = undecoded(build_from(files, tmp_path))
    assert sorted(rows, key=lambda row: row["pair_id"]) == undecoded(build(out, tmp_path)["train"])
    with pytest.raises(UserError, match="unique.*photo"):
        build_from([str(out), files[0]], tmp_path)
    with pytest.raises(UserError, match="no pairs.*pair_id"):
        build_from(str(prepared / "vqa-train.parquet"), tmp_path)


def test_all_configurations_hold_each_image_once(out, prepared, stored, tmp_path):
    images = {pair[name]["bytes"] for pair in stored for name in ("source", "clean", "flawed")}
    pairs = sum(path.stat().st_size for path in (out / "data").iterdir())
    for config in CONFIGS:
        build(out, tmp_path, config)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    kept = [path for path in files if "artiagent-images" in path.parts]
    assert sorted(path.read_bytes() for path in kept) == sorted(images)
    # The texts and masks of six small pairs weigh as much as 200 KB of their images.
    assert sum(path.stat().st_size for path in files) <= 1.3 * pairs
    shown = [path.read_bytes() for folder in ("images", "sources") for path in (prepared / folder).rglob("*.png")]
    assert sorted(shown) == sorted(images)


def test_an_image_that_was_not_written_whole_is_written_again(tmp_path):
    files = ImageFiles(tmp_path)
    path = Path(files.add(b"an image"))
    path.write_bytes(b"")
    assert files.add(b"an image") == str(path) and path.read_bytes() == b"an image"
    assert [entry for entry in tmp_path.rglob("*") if entry.is_file()] == [path]


LOAD_ALONE = """
import json, sys
from datasets import load_dataset
loaded = []
for name in sys.argv[1:]:
    for streaming in (True, False) if name != "artiagent" else (False,):
        rows = load_dataset(name, "vqa", split="test", streaming=streaming)
        loaded.append([[row["id"], row["messages"], row["images"][0].getpixel((5, 7))] for row in rows])
print(json.dumps(loaded))
assert not any(name.startswith("datasets_script") for name in sys.modules)
"""


def load_alone(names, folder, **environment):
    """The test split of `vqa` of each name, streamed and loaded, by a program that knows nothing of this package."""
    run = subprocess.run(
        [sys.executable, "-c", LOAD_ALONE, *names],
        env={**os.environ, **environment, "PYTHONPATH": ""},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def seen(rows):
    return [[row["id"], row["messages"], list(row["images"][0].getpixel((5, 7)))] for row in rows]


def test_trl_rows_need_no_package_but_datasets(out, prepared, tmp_path):
    """Of a folder, of the same files on the Hub, streaming or not, and of the cache."""
    options: dict[str, Any] = {"coordinates": "qwen3", "test_share": 0.5, "seed": 1}
    expected = seen(build(out, tmp_path / "cache", "vqa", **options)["test"])
    with LocalHub() as hub:
        hub.create_repository("dataset", "tester/pairs")
        files = {str(path.relative_to(prepared)): path.read_bytes() for path in prepared.rglob("*") if path.is_file()}
        hub.commit("dataset", "tester/pairs", files, ())
        environment = hub.environment(tmp_path / "home")
        assert load_alone([str(prepared), "tester/pairs"], tmp_path, **environment) == [expected] * 4
    prepare("artiagent", str(out), "vqa", **options)
    cache = str(datasets.config.HF_DATASETS_CACHE)
    assert load_alone(["artiagent"], tmp_path, HF_DATASETS_CACHE=cache, HF_HUB_OFFLINE="1") == [expected]


def test_masks_are_the_union_and_each_type(out, tmp_path, pairs):
    rows = build(out, tmp_path, "masks")["train"]
    assert set(rows.column_names) == {"id", "image", "mask", *(f"mask_{kind}" for kind in ARTIFACT_TYPES)}
    for index, pair in enumerate(pairs):
        clean, flawed = rows[2 * index], rows[2 * index + 1]
        for name in ("mask", *(f"mask_{kind}" for kind in ARTIFACT_TYPES)):
            assert clean[name].size == (WIDTH, HEIGHT) and not np.asarray(clean[name]).any()
            kinds = ARTIFACT_TYPES if name == "mask" else (name.removeprefix("mask_"),)
            expected = np.zeros((HEIGHT, WIDTH), dtype=bool)
            for artifact in pair.artifacts:
                if artifact.type in kinds:
                    expected |= artifact.mask
            np.testing.assert_array_equal(np.asarray(flawed[name]), expected * np.uint8(255))


def test_vqa_shows_the_images_as_written(out, tmp_path, stored):
    shown = [row["images"][0]["bytes"] for row in undecoded(build(out, tmp_path, "vqa")["train"])]
    assert shown == [pair[side]["bytes"] for pair in stored for side in ("clean", "flawed")]


def test_vqa_is_in_the_chosen_coordinates(out, tmp_path, pairs):
    rows = build(out, tmp_path, "vqa", coordinates="internvl", seed=1)["train"]
    assert len(rows) == 2 * len(pairs)
    for row in rows:
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"] * (len(row["messages"]) // 2)
        assert [image.size for image in row["images"]] == [(WIDTH, HEIGHT)]
        assert row["messages"][0]["content"][0] == {"type": "image", "text": None}
    flawed = [row["messages"][3]["content"][0]["text"] for row in rows if row["id"].endswith("#flawed")]
    assert all(answer.startswith("<box>[[") for answer in flawed)
    pixels = build(out, tmp_path, "vqa", seed=1)["train"]
    assert pixels[1]["messages"][3] != rows[1]["messages"][3]


@pytest.mark.parametrize("config", CONFIGS)
def test_streams_and_processes_give_the_same_rows(out, tmp_path, config):
    rows = undecoded(build(out, tmp_path / "one", config)["train"])
    assert undecoded(build(out, tmp_path / "two", config, num_proc=2)["train"]) == rows
    builder = ArtiAgentPairs(config_name=config, source=str(out), cache_dir=str(tmp_path / "three"))
    stream = builder.as_streaming_dataset("train")
    assert stream.num_shards == 3
    assert undecoded(stream) == rows


def test_no_photo_is_in_both_splits(out, tmp_path):
    splits = build(out, tmp_path, test_share=0.5, seed=1)
    photos = {name: set(rows["source_id"]) for name, rows in splits.items()}
    assert photos["train"] and photos["test"] and not photos["train"] & photos["test"]
    assert sum(len(rows) for rows in splits.values()) == 6
    assert list(build(out, tmp_path)) == ["train"]
    images = build(out, tmp_path, "images", test_share=0.5, seed=1)
    assert len(images["test"]) == 2 * len(splits["test"])


def test_the_test_split_has_about_its_share():
    names = [f"{index}.jpg" for index in range(4000)]
    share = sum(split_of(name, 0.1) == "test" for name in names) / len(names)
    assert 0.08 < share < 0.12
    assert {name for name in names if split_of(name, 0.1) == "test"} <= {
        name for name in names if split_of(name, 0.2) == "test"
    }


def test_several_sources_are_read_one_after_the_other(out, tmp_path):
    first, *others = sorted((out / "data").glob("*.parquet"))
    rows = build_from([str(path) for path in (*others, first)], tmp_path)
    assert rows["pair_id"][:2] == ["photo2.png:0", "photo3.png:0"] and rows["pair_id"][-1] == "photo1.png:0"
    pattern = build_from(str(out / "data" / "*-0000[01].parquet"), tmp_path)
    assert len(pattern) == 4


def build_from(source, cache):
    builder = ArtiAgentPairs(source=source, cache_dir=str(cache))
    builder.download_and_prepare()
    return builder.as_dataset("train")


def test_a_changed_source_is_read_anew(out, tmp_path, pairs):
    copy = shutil.copytree(out, tmp_path / "copy")
    assert len(build(copy, tmp_path / "cache")["train"]) == 6
    os.remove(copy / "data" / "pairs-00002.parquet")
    assert len(build(copy, tmp_path / "cache")["train"]) == 4


def test_sources_that_are_none_are_named(out, tmp_path):
    with pytest.raises(UserError, match="source"):
        ArtiAgentPairs(cache_dir=str(tmp_path))
    with pytest.raises(UserError, match="neither a folder"):
        find_shards(str(tmp_path / "missing"))
    with pytest.raises(UserError, match=r"no run\.json"):
        find_shards(tmp_path)
    (tmp_path / "prepared").mkdir()
    shutil.copy(out / "run.json", tmp_path / "prepared")
    with pytest.raises(UserError, match=r"no data/\*\.parquet"):
        find_shards(tmp_path / "prepared")
    running = shutil.copytree(out, tmp_path / "running")
    (running / "run.json").write_text('{"status": "running"}')
    with pytest.raises(UserError, match=r"not complete.*\*\.parquet"):
        find_shards(running)
    assert len(find_shards(str(running / "data" / "*.parquet"))) == 3


def test_files_without_pairs_and_ids_in_use_twice_are_refused(out, tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match="no pairs.*pair_id"):
        build_from(str(tmp_path / "other.parquet"), tmp_path / "cache")
    with pytest.raises(UserError, match="unique.*photo0"):
        build_from([str(out), str(out / "data" / "pairs-00000.parquet")], tmp_path / "cache")
    (tmp_path / "cut.parquet").write_bytes((out / "data" / "pairs-00000.parquet").read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cut\.parquet' is not a complete Parquet file"):
        build_from(str(tmp_path / "cut.parquet"), tmp_path / "cache")


def test_options_out_of_range_are_refused(out, tmp_path):
    with pytest.raises(UserError, match="coordinates.*'yolo'"):
        build(out, tmp_path, "vqa", coordinates="yolo")
    with pytest.raises(UserError, match="test_share"):
        build(out, tmp_path, test_share=1.0)
    with pytest.raises(UserError, match="max_pixels, got 3136 and 1000"):
        build(out, tmp_path, "vqa", coordinates="qwen2.5", max_pixels=1000)
