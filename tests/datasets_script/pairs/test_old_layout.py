"""Sets of pairs written before `variant`, `kernel` and `instance_id` were columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import Features, load_dataset
from datasets.arrow_writer import ParquetWriter

from datasets_script.pairs.builder import ArtiAgentPairs
from datasets_script.pairs.old_layout import upgrade_shards
from datasets_script.pairs.report import write_pair_report
from datasets_script.pairs.report.columns import read_facts
from datasets_script.pairs.storage import check_shards, find_shards, read_pairs, read_rows
from datasets_script.schema.features import NOISE_COLUMNS, PAIR_FEATURES, pair_to_row, row_to_pair
from datasets_script.schema.pair import Pair
from tests.helpers.made_pairs import HEIGHT, WIDTH, make_pair, write_run


OLD_FEATURES = Features(
    {
        name: [{key: value for key, value in feature.feature.items() if key not in ("kernel", "instance_id")}]
        if name == "artifacts"
        else feature
        for name, feature in PAIR_FEATURES.items()
        if name != "variant"
    }
)


def old_row(pair: Pair) -> dict[str, Any]:
    """A row as it was written then: kernel and instance among the parameters."""
    row = pair_to_row(pair)
    del row["variant"]
    for artifact in row["artifacts"]:
        parameters = {"instance_id": artifact.pop("instance_id"), **json.loads(artifact["parameters"])}
        if kernel := artifact.pop("kernel"):
            parameters["kernel"] = kernel
        artifact["parameters"] = json.dumps(parameters)
    return row


def write_old_shard(path: Path, pairs: list[Pair]) -> None:
    writer = ParquetWriter(features=OLD_FEATURES, path=str(path))
    for pair in pairs:
        writer.write(old_row(pair))
    writer.finalize()


def make_old_pair(index: int) -> Pair:
    pair = make_pair(index)
    pair.transform["output_size"] = [WIDTH, HEIGHT]
    return pair


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    pairs = [make_old_pair(index) for index in range(4)]
    assert any(artifact.kernel for pair in pairs for artifact in pair.artifacts)
    return pairs


@pytest.fixture
def out(tmp_path, pairs) -> Path:
    """A run of two shards, as it was left then."""
    out = write_run(tmp_path / "out", pairs, shards=2)
    for number, path in enumerate(sorted((out / "data").glob("*.parquet"))):
        write_old_shard(path, pairs[2 * number : 2 * number + 2])
    (out / "rejected.jsonl").write_text("")
    return out


def fields_of(pair: Pair) -> list[tuple]:
    return [(pair.pair_id, pair.variant, pair.explanation)] + [
        (artifact.kernel, artifact.instance_id, artifact.parameters, artifact.bbox, artifact.scores)
        for artifact in pair.artifacts
    ]


def test_the_pairs_of_an_old_set_are_those_that_were_written(out, pairs):
    expected = [fields_of(pair) for pair in pairs]
    check_shards(find_shards(out))
    assert [fields_of(pair) for pair in read_pairs(out)] == expected
    files = str(out / "data" / "*.parquet")
    loaded = load_dataset("parquet", data_files=files, split="train", streaming=True)
    assert [fields_of(row_to_pair(row)) for row in loaded] == expected


def test_its_rows_are_those_of_today(out, pairs):
    assert [{**row, "source": None, "clean": None, "flawed": None} for row in read_rows(find_shards(out))] == [
        {**pair_to_row(pair), "source": None, "clean": None, "flawed": None} for pair in pairs
    ]


def test_it_is_prepared_and_reported_on_as_any_other(out, pairs, tmp_path):
    builder = ArtiAgentPairs(config_name="pairs", source=str(out), cache_dir=str(tmp_path / "cache"))
    builder.download_and_prepare()
    prepared = builder.as_dataset("train")
    assert prepared.features == PAIR_FEATURES
    assert prepared[:]["variant"] == [pair.variant for pair in pairs]
    kernels = [artifact.kernel for facts in read_facts(out) for artifact in facts.artifacts]
    assert kernels == [artifact.kernel for pair in pairs for artifact in pair.artifacts]
    write_pair_report(out, tmp_path / "report", show_progress=False)
    assert (tmp_path / "report" / "report.html").exists()


def test_a_run_continued_since_gets_one_layout_and_keeps_its_images(out, pairs, tmp_path):
    first, second = sorted((out / "data").glob("*.parquet"))
    images = [row["clean"]["bytes"] for row in read_rows([str(first)])]
    newer = write_run(tmp_path / "newer", pairs, shards=2)
    (newer / "data" / second.name).rename(second)
    before = second.read_bytes()
    upgrade_shards(out)
    assert second.read_bytes() == before
    assert pq.read_schema(first).names == list(PAIR_FEATURES)
    assert [row["clean"]["bytes"] for row in read_rows([str(first)])] == images
    loaded = load_dataset(str(out / "data"), split="train", streaming=True)
    assert [fields_of(row_to_pair(row)) for row in loaded] == [fields_of(pair) for pair in pairs]


def test_a_run_from_before_noise_could_be_stored_gets_its_columns(tmp_path, pairs):
    out = write_run(tmp_path / "out", pairs, shards=2)
    first, second = sorted((out / "data").glob("*.parquet"))
    pq.write_table(pq.read_table(first).drop_columns([*NOISE_COLUMNS]), first)
    check_shards(find_shards(out))
    assert [pair.clean_noise for pair in read_pairs(out)] == [None] * len(pairs)
    upgrade_shards(out)
    assert pq.read_schema(first).equals(pq.read_schema(second))
    loaded = load_dataset(str(out / "data"), split="train", streaming=True)
    assert [fields_of(row_to_pair(row)) for row in loaded] == [fields_of(pair) for pair in pairs]


def test_a_run_whose_shards_are_alike_is_left_as_it_is(out):
    before = [path.read_bytes() for path in sorted((out / "data").glob("*.parquet"))]
    upgrade_shards(out)
    assert [path.read_bytes() for path in sorted((out / "data").glob("*.parquet"))] == before
