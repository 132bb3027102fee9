"""Pairs to parquet and back, and the dataset's card."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from datasets import load_dataset
from datasets.arrow_writer import ParquetWriter
from huggingface_hub import DatasetCard
from PIL import Image

from datasets_script.pairs.card import ARTIFACT_FIELDS, COLUMNS, write_pair_card
from datasets_script.schema.features import PAIR_FEATURES, pair_to_row, row_to_pair
from datasets_script.schema.pair import Artifact, Pair
from datasets_script.schema.run_record import RunRecord
from datasets_script.utils.files import data_fingerprint
from diffusers_artifact.mapping import PatchMapping


GRID = (4, 6)
RUN = {
    "settings": {"model": "embedded", "seed": 0},
    "perception": {"backend": "annotations"},
    "curation": {"metric": "stlpips", "vlm": None},
    "model_revision": "abc",
    "versions": {"torch": "2.15.0"},
    "sources": {"count": 2, "sha256": "0"},
    "status": "complete",
    "fingerprint": "0123",
    "pairs": 3,
    "rejected": 4,
    "made": {"fusion": 5, "omission": 1},
    "accepted": {"fusion": 3},
    "num_function_evaluations": 78,
    "seconds": 1.5,
}


def make_pair(index: int) -> Pair:
    rng = np.random.default_rng(index)
    images = [Image.fromarray(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)) for _ in range(3)]
    fusion = Artifact(
        type="fusion",
        tool="fuse",
        entity="café cup",
        part="",
        fused_entity="spoon",
        mapping=PatchMapping.from_pairs([(7, 2), (3, 2)], GRID, "fusion"),
        mask=rng.random((64, 96)) > 0.5,
        bbox=(1.0, 2.0, 33.3, 64.0),
        part_mask=rng.random((64, 96)) > 0.5,
        label="fused cup and spoon",
        explanation="They merge.",
        scores={"change_inside": 0.1 + 0.2, "stlpips": 1 / 3},
        parameters={"offset": [1, -2], "note": "ü", "nested": {"kernel": None}},
        instance_id=7,
    )
    omission = Artifact(
        type="omission",
        tool="remove",
        entity="cat",
        part="ear",
        fused_entity="",
        mapping=PatchMapping.from_pairs([(0, 23)], GRID, "omission"),
        mask=np.ones((64, 96), dtype=bool),
        bbox=(0.0, 0.0, 96.0, 64.0),
        part_mask=np.zeros((64, 96), dtype=bool),
    )
    return Pair(
        pair_id=f"photo.png:{index}",
        source_id="photo.png",
        variant=index,
        source=images[0],
        clean=images[1],
        flawed=images[2],
        caption="a cup",
        clean_description="A whole cup.",
        explanation="Two artifacts.",
        explanation_source="template",
        grid=GRID,
        seed=2**63 - 1,
        solver="fireflow",
        num_inference_steps=25,
        model="embedded",
        model_revision="abc",
        transform={"crop": [0, 0, 96, 64], "scale": 0.1},
        artifacts=(fusion, omission)[: 1 + index % 2],
        clean_noise=rng.standard_normal((16, 8, 12)).astype(np.float16) if index else None,
        flawed_noise=rng.standard_normal((16, 8, 12)).astype(np.float16) if index else None,
    )


def assert_equal(first: Any, second: Any) -> None:
    """Field by field, arrays and images by their content."""
    assert type(first) is type(second)
    if isinstance(first, Pair | Artifact):
        for field in fields(first):
            assert_equal(getattr(first, field.name), getattr(second, field.name))
    elif isinstance(first, Image.Image | np.ndarray):
        np.testing.assert_array_equal(np.asarray(first), np.asarray(second))
    elif isinstance(first, tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_equal(one, other)
    else:
        assert first == second


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return [make_pair(index) for index in range(3)]


@pytest.fixture
def out(tmp_path, pairs):
    """A folder as a run leaves it, with everything that must not disturb `load_dataset`."""
    (tmp_path / "data").mkdir()
    for index, shard in enumerate((pairs[:2], pairs[2:])):
        writer = ParquetWriter(features=PAIR_FEATURES, path=str(tmp_path / "data" / f"pairs-{index:05d}.parquet"))
        for pair in shard:
            writer.write(pair_to_row(pair))
        writer.finalize()
    write_pair_card(tmp_path, RunRecord.from_dict(RUN))
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    (tmp_path / "rejected.jsonl").write_text('{"source_id": "a.png"}\n')
    for folder, name in (("shards", "00000.json"), ("photos", "annotations.json")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text("{}")
    pairs[0].source.save(tmp_path / "contact_sheet.png")
    pairs[0].source.save(tmp_path / "photos" / "a.png")
    return tmp_path


@pytest.mark.parametrize("streaming", [False, True])
def test_round_trip_through_the_folder_is_exact(out, pairs, tmp_path_factory, streaming):
    cache = str(tmp_path_factory.mktemp("cache"))
    loaded = load_dataset(str(out), split="train", streaming=streaming, cache_dir=cache)
    assert loaded.features == PAIR_FEATURES
    read = [row_to_pair(row) for row in loaded]
    assert len(read) == len(pairs)
    for pair, other in zip(pairs, read, strict=True):
        assert_equal(pair, other)


def test_round_trip_through_bare_parquet_is_exact(out, pairs):
    files = str(out / "data" / "*.parquet")
    rows = load_dataset("parquet", data_files=files, split="train", streaming=True)
    for pair, row in zip(pairs, rows, strict=True):
        assert_equal(pair, row_to_pair(row))


def test_equal_pairs_give_equal_rows_whatever_their_images_carry(pairs):
    tagged = make_pair(0)
    tagged.source.info["icc_profile"] = b"profile"
    tagged.source.info["dpi"] = (300, 300)
    assert pair_to_row(tagged) == pair_to_row(pairs[0])


def test_numbers_json_cannot_hold_are_refused(pairs):
    broken = make_pair(0)
    broken.artifacts[0].scores["psnr_outside"] = float("inf")
    with pytest.raises(ValueError, match="JSON"):
        pair_to_row(broken)


def test_the_card_describes_every_column_and_gives_the_run(out):
    assert set(COLUMNS) == set(PAIR_FEATURES)
    assert set(ARTIFACT_FIELDS) == set(PAIR_FEATURES["artifacts"].feature)
    card = DatasetCard.load(out / "README.md")
    (config,) = card.data.configs
    assert config.pop("description") == f"rows {data_fingerprint((out / 'data').glob('*.parquet'))}"
    assert config == {
        "config_name": "pairs",
        "default": True,
        "data_files": [{"split": "train", "path": "data/*.parquet"}],
    }
    assert card.data.license == "unknown"
    assert "3 pairs made from 2 photos" in card.text
    assert "| fusion | 3 | 5 |" in card.text and "| omission | 0 | 1 |" in card.text
    assert '"torch": "2.15.0"' in card.text
    assert not list(out.glob("*.incomplete"))


def test_the_license_of_the_run_is_on_the_card(tmp_path):
    write_pair_card(tmp_path, RunRecord.from_dict(RUN | {"license": "cc-by-4.0"}))
    assert DatasetCard.load(tmp_path / "README.md").data.license == "cc-by-4.0"
