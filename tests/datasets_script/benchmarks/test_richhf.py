"""RichHF-18K, and the TFRecord files it is published in."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_script.benchmarks.base import BenchmarkError, Skipped
from datasets_script.benchmarks.richhf import RichHF, RichHFBuilder, is_mean_of_three
from datasets_script.benchmarks.tfrecord import (
    TFRecordError,
    masked_crc32c,
    parse_example,
    read_examples,
    read_records,
)
from datasets_script.schema.image import image_to_row, row_to_image

from ...helpers.benchmark_sources import (
    length_delimited,
    picture,
    richhf_example,
    tf_example,
    tf_record,
    varint,
    write_richhf,
)


def heat_map(marked=170, size=512):
    levels = np.zeros((size, size), dtype=np.uint8)
    levels[size // 4 : size // 2, : size // 8] = marked
    return levels


# TFRecord files


def test_the_masked_checksum_of_a_known_string():
    # CRC-32C of "123456789" is 0xE3069283 (RFC 3720's polynomial, the check value of every catalogue of CRCs).
    rotated = (0xE3069283 >> 15) | (0xE3069283 << 17 & 0xFFFFFFFF)
    assert masked_crc32c(b"123456789") == (rotated + 0xA282EAD8) % 2**32


def test_reads_bytes_floats_and_integers(tmp_path):
    path = tmp_path / "a.tfrecord"
    features: list[dict] = [
        {"name": b"a.png", "score": 0.25, "count": -3},
        {"name": b"", "score": -1.5, "count": 2**40},
    ]
    path.write_bytes(b"".join(tf_record(tf_example(example)) for example in features))
    assert list(read_examples(path)) == [
        {"name": [b"a.png"], "score": [0.25], "count": [-3]},
        {"name": [b""], "score": [-1.5], "count": [2**40]},
    ]


def test_reads_lists_of_numbers_packed_and_one_by_one():
    floats = varint(1 << 3 | 5) + struct.pack("<f", 1.5) + length_delimited(1, struct.pack("<ff", 2.5, 3.5))
    integers = varint(1 << 3) + varint(7) + length_delimited(1, varint(300) + varint(2**64 - 1))
    entries = b"".join(
        length_delimited(1, length_delimited(1, name) + length_delimited(2, length_delimited(kind, values)))
        for name, kind, values in [(b"floats", 2, floats), (b"integers", 3, integers), (b"empty", 3, b"")]
    )
    example = parse_example(length_delimited(1, entries))
    assert example == {"floats": [1.5, 2.5, 3.5], "integers": [7, 300, -1], "empty": []}


@given(st.dictionaries(st.text(max_size=5), st.binary(max_size=300) | st.integers(-(2**63), 2**63 - 1), max_size=5))
def test_every_example_is_read_back(features):
    assert parse_example(tf_example(features)) == {name: [value] for name, value in features.items()}


@given(st.binary(max_size=60))
def test_any_other_bytes_are_refused_or_read_without_another_error(message):
    try:
        parse_example(message)
    except ValueError:
        pass


def test_a_damaged_file_is_refused_with_its_name_and_the_offset(tmp_path):
    records = [tf_record(b"first"), tf_record(b"second")]
    path = tmp_path / "a.tfrecord"
    offset = len(records[0])
    content = b"".join(records)
    for position, what in [(offset + 2, "its length: wrong checksum"), (offset + 14, "wrong checksum")]:
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(TFRecordError, match=f"a.tfrecord, record at byte {offset}.*{what}"):
            list(read_records(path))
    for missing in (1, 5, 12):
        path.write_bytes(content[:-missing])
        with pytest.raises(TFRecordError, match=f"record at byte {offset}.*cut short"):
            list(read_records(path))


def test_an_enormous_length_is_refused_without_being_read(tmp_path):
    length = struct.pack("<Q", 2**60)
    (tmp_path / "a").write_bytes(length + struct.pack("<I", masked_crc32c(length)) + bytes(100))
    with pytest.raises(TFRecordError, match="cut short"):
        list(read_records(tmp_path / "a"))


def test_records_before_a_range_are_passed_over_unread(tmp_path):
    contents = [bytes([number]) * (number + 1) for number in range(5)]
    damaged = bytearray(b"".join(tf_record(content) for content in contents))
    damaged[12] ^= 1
    (tmp_path / "a").write_bytes(damaged)
    with pytest.raises(TFRecordError, match="wrong checksum"):
        list(read_records(tmp_path / "a"))
    for start, stop in ((1, None), (2, 4), (3, 3), (5, None)):
        assert [content for _, content in read_records(tmp_path / "a", start, stop)] == contents[start:stop]


def test_a_record_that_is_no_example_is_named(tmp_path):
    (tmp_path / "a").write_bytes(tf_record(b"\x0a\x7f"))
    with pytest.raises(TFRecordError, match="record at byte 0: not a tf.train.Example, a field of 127 bytes"):
        list(read_examples(tmp_path / "a"))


def test_a_pointer_of_git_lfs_tells_how_to_fetch_the_file(tmp_path):
    (tmp_path / "a").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(TFRecordError, match="git lfs pull"):
        list(read_records(tmp_path / "a"))


# RichHF-18K


def read_images(source) -> list[Any]:
    return list(RichHF().read(source, "test"))


def test_reads_heat_map_scores_and_image(tmp_path):
    source = write_richhf(tmp_path, "test", {"test/ab-1.png": heat_map(170)}, size=(512, 512))
    (image,) = read_images(source)
    assert (image.id, image.size, image.has_artifact) == ("ab-1", (512, 512), None)
    assert image.image == (source / "images" / "ab-1.png").read_bytes()
    (region,) = image.regions
    assert (region.shape, region.bbox) == ("heat_map", (0, 128, 64, 256))
    assert region.mask.dtype == np.float32
    np.testing.assert_array_equal(region.mask, heat_map(170) / np.float32(255))
    assert image.metadata == {
        "filename": "test/ab-1.png",
        "aesthetics_score": 0.5,
        "artifact_score": 0.25,
        "misalignment_score": 0.75,
        "overall_score": 0.5,
        "prompt_misalignment_label": "1 1 0 1",
        "heat_map_size": [512, 512],
        "three_annotators": True,
    }
    np.testing.assert_array_equal(row_to_image(image_to_row(image)).regions[0].mask, region.mask)


def test_a_heat_map_of_another_size_is_brought_to_its_image(tmp_path):
    source = write_richhf(tmp_path, "test", {"test/a.png": heat_map(255)}, size=(96, 64))
    (image,) = read_images(source)
    mask = image.regions[0].mask
    assert mask.shape == (64, 96)
    # Published: rows 1/4 to 1/2, columns 0 to 1/8.
    assert (mask[18:30, :10] == 1).all() and not mask[34:].any() and not mask[:, 14:].any()
    assert abs(mask.mean() - 1 / 32) < 0.002


def test_an_empty_heat_map_has_no_box(tmp_path):
    source = write_richhf(tmp_path, "test", {"test/a.png": heat_map(0)}, size=(16, 16))
    (image,) = read_images(source)
    assert image.regions[0].bbox is None and not image.regions[0].mask.any()


def test_images_are_found_by_id_whatever_folder_and_format(tmp_path):
    source = write_richhf(tmp_path, "dev", {"train/a.png": heat_map(), "train/b.png": heat_map()}, size=(8, 8))
    (source / "images" / "nested").mkdir()
    (source / "images" / "a.png").rename(source / "images" / "nested" / "a.JPG")
    assert [item.id for item in RichHF().read(source, "dev")] == ["a", "b"]


def test_records_without_a_readable_image_or_map_are_skipped_with_reasons(tmp_path):
    maps = {f"test/{name}.png": heat_map() for name in "abcd"}
    source = write_richhf(tmp_path, "test", maps, size=(8, 8))
    (source / "images" / "b.png").unlink()
    (source / "images" / "c.png").write_bytes(picture(0)[:-30])
    broken = richhf_example("test/e.png", heat_map()) | {"artifact_map": b"no image"}
    (source / "images" / "e.png").write_bytes(picture(4))
    with (source / "test.tfrecord").open("ab") as file:
        file.write(tf_record(tf_example(broken)))
    items = list(RichHF().read(source, "test"))
    assert [item.id for item in items] == ["a", "b", "c", "d", "e"]
    skipped = {item.id: item.reason for item in items if isinstance(item, Skipped)}
    assert skipped["b"] == "the image of test/b.png is not in images/"
    assert skipped["c"].startswith("the image: ")
    assert skipped["e"] == "the artifact map is no image"
    assert skipped.keys() == {"b", "c", "e"}


def test_a_record_without_a_field_stops_the_reading(tmp_path):
    source = write_richhf(tmp_path, "test", {"test/a.png": heat_map()}, size=(8, 8))
    example = richhf_example("test/a.png", heat_map())
    del example["artifact_score"]
    (source / "test.tfrecord").write_bytes(tf_record(tf_example(example)))
    with pytest.raises(BenchmarkError, match="must have one value of 'artifact_score', got 0; this one has filename"):
        list(RichHF().read(source, "test"))


@pytest.mark.parametrize("missing", ["test.tfrecord", "images"])
def test_a_source_without_labels_or_images_tells_what_to_fetch(tmp_path, missing):
    source = write_richhf(tmp_path, "test", {}, size=(8, 8))
    (source / missing).rename(source / "elsewhere")
    with pytest.raises(BenchmarkError, match=f"(?s)found no .*{missing}.*pickapic_v1"):
        list(RichHF().read(source, "test"))


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([0, 85, 170, 255], True),
        ([0, 84, 171], True),  # rounded otherwise
        ([0, 170], True),
        ([0], False),
        ([0, 255], False),  # any number of people who agree
        ([0, 128, 255], False),  # two people
        ([0, 85, 120], False),
    ],
)
def test_maps_of_three_annotators_are_known_by_their_levels(levels, expected):
    assert is_mean_of_three(np.array([levels], dtype=np.uint8)) is expected


def test_only_the_asked_split_is_read(tmp_path):
    source = write_richhf(tmp_path / "source", "test", {"test/a.png": heat_map()}, size=(8, 8))
    builder = RichHFBuilder(cache_dir=tmp_path, source=str(source), splits="test", allow_partial=True)
    builder.download_and_prepare()
    assert list(builder.as_dataset()) == ["test"]
    with pytest.raises(BenchmarkError, match="found no train.tfrecord"):
        RichHFBuilder(cache_dir=tmp_path, source=str(source), allow_partial=True).download_and_prepare()
    with pytest.raises(BenchmarkError, match="`splits` must be among train, dev, test for richhf, got 'val'"):
        RichHFBuilder(cache_dir=tmp_path, source=str(source), splits="val").download_and_prepare()
