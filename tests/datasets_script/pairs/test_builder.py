"""The builder of the data set of pairs: its configs, splits, streaming, processes, and sources that are none."""

from __future__ import annotations

import io
import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Image as ImageFeature
from datasets import List, load_dataset
from huggingface_hub import DatasetCard
from PIL import Image

from datasets_script.benchmarks.loading import load_benchmark
from datasets_script.pairs.builder import ArtiAgentPairs
from datasets_script.pairs.prepare import prepare_pairs_folder
from datasets_script.pairs.storage import find_shards, split_of
from datasets_script.schema.features import PAIR_FEATURES, row_to_pair
from datasets_script.schema.image import BENCHMARK_FEATURES
from datasets_script.utils.errors import UserError
from diffusers_artifact.mapping import ARTIFACT_TYPES
from tests.helpers.made_pairs import HEIGHT, WIDTH, make_pair, write_run

from ...helpers.paths import ROOT


CARD = ROOT / "hub_cards" / "datasets" / "artiagent.md"
CONFIGS = ("pairs", "images", "vqa", "masks", "instructions", "comparisons")


@pytest.fixture(scope="module")
def pairs():
    # Two pairs of one photograph, which must stay together.
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
    """Rows with pictures as they are stored."""
    for name, feature in rows.features.items():
        if isinstance(feature, ImageFeature):
            rows = rows.cast_column(name, ImageFeature(decode=False, mode=feature.mode))
        elif name == "images":
            rows = rows.cast_column(name, List(ImageFeature(decode=False, mode="RGB")))
    return rows


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


def test_the_card_loads_what_it_tells_to_write(out, tmp_path):
    folder = tmp_path / "artiagent"
    for config in [entry["config_name"] for entry in DatasetCard.load(CARD).data.configs]:
        builder = ArtiAgentPairs(config_name=config, source=str(out), cache_dir=str(tmp_path / "cache"))
        builder.download_and_prepare(str(folder / config), file_format="parquet")
        shutil.copy(CARD, folder / "README.md")
        rows = load_dataset(str(folder), config, split="train", cache_dir=str(tmp_path / "cache"))
        assert rows.features == builder.info.features
        # Of six pairs: one row each, one an image, or one an image and task.
        assert len(rows) == {"pairs": 6, "comparisons": 6, "instructions": 36}.get(config, 12)


def test_a_prepared_folder_gives_every_config_under_the_card_of_the_run(out, tmp_path):
    (out / "README.md").write_text("---\nlicense: cc0-1.0\n---\n\n# Pairs of cats and dogs\n")
    folder = tmp_path / "set"
    prepared = prepare_pairs_folder(out, folder, CONFIGS, coordinates="qwen3", test_share=0.5)
    for config in CONFIGS:
        loaded = load_dataset(str(folder), config, cache_dir=str(tmp_path / "cache"))
        assert {split: rows.num_rows for split, rows in loaded.items()} == {
            split: info.num_examples for split, info in prepared[config].items()
        }
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
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["README.md", "prepared.json", "run.json", *CONFIGS]
    )
    with pytest.raises(FileExistsError):
        prepare_pairs_folder(out, folder, CONFIGS)


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
        assert [picture.size for picture in row["images"]] == [(WIDTH, HEIGHT)]
        assert row["messages"][0]["content"][0] == {"type": "image", "text": None}
    flawed = [row["messages"][3]["content"][0]["text"] for row in rows if row["id"].endswith("#flawed")]
    assert all(answer.startswith("<box>[[") for answer in flawed)
    pixels = build(out, tmp_path, "vqa", seed=1)["train"]
    assert pixels[1]["messages"][3] != rows[1]["messages"][3]


@pytest.mark.parametrize("config", CONFIGS)
def test_streams_and_processes_give_the_same_rows(out, tmp_path, config):
    rows = list(undecoded(build(out, tmp_path / "one", config)["train"]))
    assert list(undecoded(build(out, tmp_path / "two", config, num_proc=2)["train"])) == rows
    builder = ArtiAgentPairs(config_name=config, source=str(out), cache_dir=str(tmp_path / "three"))
    stream = builder.as_streaming_dataset("train")
    assert stream.num_shards == 3
    assert list(undecoded(stream)) == rows


def test_no_photograph_is_in_both_splits(out, tmp_path):
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
    with pytest.raises(UserError, match=r"cut\.parquet' is no whole Parquet file"):
        build_from(str(tmp_path / "cut.parquet"), tmp_path / "cache")


def test_options_out_of_range_are_refused(out, tmp_path):
    with pytest.raises(UserError, match="coordinates.*'yolo'"):
        build(out, tmp_path, "vqa", coordinates="yolo")
    with pytest.raises(UserError, match="test_share"):
        build(out, tmp_path, test_share=1.0)
    with pytest.raises(UserError, match="max_pixels, got 3136 and 1000"):
        build(out, tmp_path, "vqa", coordinates="qwen2.5", max_pixels=1000)
