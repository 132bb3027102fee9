"""ArtiBench, and what every builder of a benchmark does with rows, counts and skipped records."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from itertools import pairwise

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datasets_script.benchmarks.artibench import ArtiBench, ArtiBenchBuilder
from datasets_script.benchmarks.base import BenchmarkError, Skipped
from datasets_script.benchmarks.builder import BenchmarkBuilder, consecutive_ranges
from datasets_script.benchmarks.card import render_card
from datasets_script.benchmarks.survey import survey_split
from datasets_script.schema.image import BENCHMARK_FEATURES, BenchmarkImage, Region, image_to_row, row_to_image

from ...helpers.benchmark_sources import ARTIBENCH_FEATURES, artibench_row, picture, write_artibench


def read(source):
    return list(ArtiBench().read(source, "test"))


def test_reads_boxes_labels_and_texts(tmp_path):
    images = read(write_artibench(tmp_path, [artibench_row(number) for number in range(10)]))
    assert [image.id for image in images] == [f"{number:04d}" for number in range(10)]
    clean, flawed = images[0], images[1]
    assert (clean.has_artifact, clean.regions, clean.explanation) == (False, (), "")
    assert flawed.image == picture(1) and flawed.size == (20, 10)
    assert flawed.has_artifact is True
    (region,) = flawed.regions
    assert (region.shape, region.bbox) == ("box", (5.0, 1.0, 15.0, 5.0))  # 0.25, 0.1, 0.75, 0.5 of 20 × 10
    assert (region.name, region.caption) == ("distortion", "Bent leg 1")
    assert (flawed.caption, flawed.explanation) == ("A dog, number 1", "A leg is bent.")
    assert flawed.metadata == {"model": "FLUX-schnell"}


def test_boxes_with_coordinates_above_one_are_pixels(tmp_path):
    row = artibench_row(1)
    row["bboxes"][0]["bbox"] = [2.0, 0.0, 20.0, 10.0]
    (image,) = read(write_artibench(tmp_path, [row]))
    assert image.regions[0].bbox == (2.0, 0.0, 20.0, 10.0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image": {"bytes": picture(1)[:-40], "path": None}}, "the image: "),
        ({"image": None}, "the row holds no image"),
        ({"has_artifacts": None}, "has_artifacts must be true or false, got None"),
        (
            {"bboxes": [{"bbox": [0.5, 0.5, 0.5, 0.9], "category": "fusion", "caption": ""}]},
            "the box [0.5, 0.5, 0.5, 0.9] is empty or not in an image of 20 × 10",
        ),
        (
            {"bboxes": [{"bbox": [1.0, 2.0, 21.0, 9.0], "category": "fusion", "caption": ""}]},
            "the box [1.0, 2.0, 21.0, 9.0] is empty or not in an image of 20 × 10",
        ),
        ({"bboxes": [{"bbox": [0.5], "category": "fusion", "caption": ""}]}, "'bbox' must be 4 numbers, got 1"),
    ],
)
def test_skips_a_record_with_its_reason(tmp_path, change, reason):
    rows = [artibench_row(0), {**artibench_row(1), **change}, artibench_row(2)]
    first, skipped, last = read(write_artibench(tmp_path, rows))
    assert (first.id, last.id) == ("0000", "0002")
    assert isinstance(skipped, Skipped)
    assert skipped.id == "0001" and skipped.reason.startswith(reason)


def test_a_source_without_the_files_tells_what_to_fetch(tmp_path):
    with pytest.raises(BenchmarkError, match="found no data/test-") as caught:
        read(tmp_path)
    assert "hf download KRAFTON/ArtiBench" in str(caught.value)


def test_other_columns_are_refused_by_name(tmp_path):
    row = artibench_row(0)
    source = write_artibench(tmp_path / "a", [row])
    shard = source / "data" / "test-00000-of-00001.parquet"
    datasets.Dataset.from_list([row], features=ARTIBENCH_FEATURES).remove_columns("bboxes").to_parquet(shard)
    with pytest.raises(BenchmarkError, match="it lacks bboxes and has id, image, has_artifacts"):
        read(source)


def test_a_shard_that_was_cut_short_is_named(tmp_path):
    source = write_artibench(tmp_path, [artibench_row(number) for number in range(6)])
    shard = source / "data" / "test-00001-of-00003.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(
        BenchmarkError, match="test-00001-of-00003.parquet' is not a complete Parquet file, fetch it again"
    ):
        read(source)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [({"bbox": [[0.1, 0.1, 0.5, 0.5]]}, "'bboxes' must be a list"), (["[0, 0, 1, 1]"], "boxes must have the fields")],
)
def test_boxes_of_another_form_are_refused(tmp_path, boxes, message):
    with pytest.raises(BenchmarkError, match=message):
        read(write_json_boxes(tmp_path, json.dumps(boxes)))


def test_boxes_may_be_json_in_a_string(tmp_path):
    boxes = artibench_row(1)["bboxes"]
    (image,) = read(write_json_boxes(tmp_path / "whole", json.dumps(boxes)))
    assert image.regions[0].bbox == (5.0, 1.0, 15.0, 5.0)
    (skipped,) = read(write_json_boxes(tmp_path / "broken", json.dumps(boxes)[:-2]))
    assert skipped.reason.startswith("'bboxes' is not JSON")


def write_json_boxes(folder, boxes):
    (folder / "data").mkdir(parents=True)
    rows = datasets.Dataset.from_list([artibench_row(1) | {"bboxes": boxes}])
    rows.to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    return folder


def test_counts_are_checked(tmp_path):
    flawed_without_box = {**artibench_row(1), "bboxes": []}
    clean_with_box = {**artibench_row(2), "bboxes": artibench_row(1)["bboxes"]}
    rows = [artibench_row(0), flawed_without_box, clean_with_box]
    survey = survey_split(ArtiBench(), write_artibench(tmp_path, rows), "test")
    assert survey.problems == (
        "1000 images are published, 3 could be read, 0 records were left out",
        "half of the images are published with artifacts, 1 of 3 have them",
        "1 clean images have boxes, such as 0002",
        "1 images with artifacts have no box, such as 0001",
    )
    assert (survey.images, survey.with_artifact) == (3, {False: 2, True: 1})


def test_equal_ids_are_a_problem(tmp_path):
    rows = [artibench_row(0), artibench_row(1), artibench_row(1)]
    survey = survey_split(ArtiBench(), write_artibench(tmp_path, rows), "test")
    assert "ids must be unique, 1 are not, such as '0001'" in survey.problems


def test_contradicted_counts_are_refused_unless_allowed(tmp_path):
    source = write_artibench(tmp_path / "source", [artibench_row(number) for number in range(4)])
    with pytest.raises(
        BenchmarkError, match="(?s)differs from the publication.*1000 images are published, 4 .*allow-partial"
    ):
        ArtiBenchBuilder(cache_dir=tmp_path / "cache", source=str(source)).download_and_prepare()
    assert not list((tmp_path / "cache").rglob("*.arrow"))
    builder = ArtiBenchBuilder(cache_dir=tmp_path / "cache", source=str(source), allow_partial=True)
    builder.download_and_prepare()
    assert len(builder.as_dataset("test")) == 4


def test_skipped_records_are_written_beside_the_data(tmp_path):
    rows = [artibench_row(0), {**artibench_row(1), "image": None}]
    source = write_artibench(tmp_path / "source", rows)
    builder = ArtiBenchBuilder(cache_dir=tmp_path / "cache", source=str(source), allow_partial=True)
    builder.download_and_prepare(str(tmp_path / "out"))
    lines = (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"split": "test", "id": "0001", "reason": "the row holds no image"}
    ]


def test_nothing_readable_is_an_error_even_if_partial_is_allowed(tmp_path):
    source = write_artibench(tmp_path / "source", [{**artibench_row(1), "image": None}])
    with pytest.raises(BenchmarkError, match="(?s)no image of test could be read.*1 left out: 1 × the row holds no"):
        ArtiBenchBuilder(cache_dir=tmp_path, source=str(source), allow_partial=True).download_and_prepare()


@pytest.mark.parametrize("source", ["nowhere/at/all", "./nowhere"])
def test_a_source_that_is_no_folder_tells_what_to_fetch(tmp_path, source):
    builder = ArtiBenchBuilder(cache_dir=tmp_path, source=source)
    with pytest.raises(BenchmarkError, match=f"(?s)`source` must be a folder, got '{source}'.*cc-by-nc-4.0"):
        builder.download_and_prepare()


def test_relative_sources_of_two_folders_do_not_share_a_cache(tmp_path, monkeypatch):
    ids = []
    for number in range(2):
        write_artibench(tmp_path / str(number) / "source", [artibench_row(number)])
        monkeypatch.chdir(tmp_path / str(number))
        builder = ArtiBenchBuilder(cache_dir=tmp_path / "cache", source="source", allow_partial=True)
        builder.download_and_prepare()
        ids.append(builder.as_dataset("test")[0]["id"])
    assert ids == ["0000", "0001"]


def test_several_processes_write_the_same_rows_in_the_same_order(tmp_path):
    source = write_artibench(tmp_path / "source", [artibench_row(number) for number in range(41)])
    tables = []
    for processes in (None, 2):
        builder = ArtiBenchBuilder(cache_dir=tmp_path / str(processes), source=str(source), allow_partial=True)
        builder.download_and_prepare(num_proc=processes)
        tables.append(builder.as_dataset("test").with_format("arrow")[:])
    assert tables[0].equals(tables[1])
    assert len(tables[0]) == 41


class CountingArtiBench(ArtiBench):
    """Notes the process of every record that is read."""

    def records(self, source, split, start=0, stop=None):
        for record in super().records(source, split, start, stop):
            with (source / "read.txt").open("a") as file:
                file.write(f"{os.getpid()}\n")
            yield record


class CountingBuilder(BenchmarkBuilder):
    benchmark = CountingArtiBench()


def test_each_process_reads_its_own_records_alone(tmp_path):
    rows = [artibench_row(number) for number in range(40)]
    rows[7]["image"] = None
    source = write_artibench(tmp_path / "source", rows)
    builder = CountingBuilder(cache_dir=tmp_path / "cache", source=str(source), allow_partial=True)
    builder.download_and_prepare(num_proc=2)
    counts = Counter((source / "read.txt").read_text().split())
    # The first pass, which counts and checks, is one process's.
    assert counts.pop(str(os.getpid())) == 40
    assert len(counts) == 2 and counts.total() in (39, 40) and max(counts.values()) <= 21
    assert len(builder.as_dataset("test")) == 39


@pytest.mark.parametrize("rows_of_a_group", [1, 3, 100])
def test_a_range_of_rows_is_read_from_all_shards(tmp_path, rows_of_a_group):
    source = write_artibench(tmp_path, [artibench_row(number) for number in range(10)])
    for shard in (source / "data").iterdir():
        table = pq.read_table(shard)
        pq.write_table(table, shard, row_group_size=rows_of_a_group)
    everything = [image.id for image in read(source)]
    for start, stop in ((0, None), (0, 0), (3, 8), (5, 6), (9, 20), (10, None)):
        assert [image.id for image in ArtiBench().read(source, "test", start, stop)] == everything[start:stop]


def test_row_groups_before_a_range_are_not_read(tmp_path):
    source = write_artibench(tmp_path, [artibench_row(number) for number in range(9)])
    (shard, *others) = sorted((source / "data").iterdir())
    pq.write_table(pa.concat_tables(map(pq.read_table, [shard, *others])), shard, row_group_size=3, compression="none")
    for other in others:
        other.unlink()
    metadata = pq.ParquetFile(shard).metadata
    columns = [metadata.row_group(1).column(index) for index in range(metadata.num_columns)]
    end = min(column.dictionary_page_offset or column.data_page_offset for column in columns)
    content = bytearray(shard.read_bytes())
    content[4:end] = b"\xff" * (end - 4)
    shard.write_bytes(content)
    with pytest.raises(BenchmarkError, match="is not a complete Parquet file"):
        read(source)
    assert [image.id for image in ArtiBench().read(source, "test", 6)] == ["0006", "0007", "0008"]


@given(st.integers(0, 500), st.integers(1, 40))
def test_ranges_cover_all_records_once(count, most):
    ranges = consecutive_ranges(count, most)
    assert ranges[0][0] == 0 and ranges[-1][1] == count
    assert all(end == start for (_, end), (start, _) in pairwise(ranges))
    assert len(ranges) <= most and (count == 0 or all(end > start for start, end in ranges))


def test_a_row_gives_back_its_image():
    mask = np.zeros((4, 6), dtype=bool)
    mask[1:3, 2:5] = True
    heat_map = (np.arange(24, dtype=np.float32) / 255).reshape(4, 6)
    image = BenchmarkImage(
        id="a/ü.png",
        image=picture(0, (6, 4)),
        size=(6, 4),
        has_artifact=None,
        regions=(
            Region("box", (0.5, 1.0, 3.25, 4.0), name="fusion", caption="Two hands"),
            Region("polygon", (0.0, 0.0, 2.0, 3.0), polygons=((0.0, 0.0, 2.0, 0.0, 2.0, 3.0), (1.0, 1.0, 2.0, 2.0))),
            Region("mask", (2.0, 1.0, 5.0, 3.0), mask=mask),
            Region("heat_map", None, mask=heat_map),
        ),
        caption="a dog",
        explanation="It has five legs.",
        metadata={"score": 0.1, "tags": ["a"], "none": None},
    )
    row = image_to_row(image)
    assert BENCHMARK_FEATURES.encode_example(row)["image"]["bytes"] == image.image
    with Image.open(io.BytesIO(row["regions"][2]["mask"]["bytes"])) as stored_mask:
        assert stored_mask.mode == "L" and set(np.unique(np.asarray(stored_mask))) == {0, 255}
    with Image.open(io.BytesIO(row["regions"][3]["mask"]["bytes"])) as stored_map:
        assert stored_map.mode == "I;16" and np.asarray(stored_map).max() == 23 * 257
    again = row_to_image(row)
    for field in ("id", "image", "size", "has_artifact", "caption", "explanation", "metadata"):
        assert getattr(again, field) == getattr(image, field)
    for region, read_back in zip(image.regions, again.regions, strict=True):
        for field in ("shape", "bbox", "polygons", "name", "caption"):
            assert getattr(read_back, field) == getattr(region, field)
        assert (read_back.mask is None) == (region.mask is None)
        if region.mask is not None:
            assert read_back.mask is not None and read_back.mask.dtype == region.mask.dtype
            np.testing.assert_array_equal(read_back.mask, region.mask)


def test_the_card_of_a_prepared_folder_has_its_counts(tmp_path):
    rows = [artibench_row(0), {**artibench_row(1), "image": None}]
    survey = survey_split(ArtiBench(), write_artibench(tmp_path, rows), "test")
    card = render_card(ArtiBench(), [survey])
    assert "| test | 1000 | 1 | 0 | 1 | 1 |" in card
    assert "- test: 1000 images are published, 1 could be read, 1 records were left out" in card
