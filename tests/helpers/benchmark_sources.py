"""Small sources of benchmarks, in the layouts in which they are published."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import datasets
import google_crc32c
import numpy as np
from datasets import Features, List, Value
from PIL import Image


ARTIBENCH_FEATURES = Features(
    {
        "id": Value("string"),
        "image": datasets.Image(),
        "has_artifacts": Value("bool"),
        "explanation": Value("string"),
        "bboxes": List(
            {"bbox": List(Value("float64")), "category": Value("string"), "caption": Value("string")},
        ),
        "prompt": Value("string"),
        "model": Value("string"),
    }
)


def encode(pixels: np.ndarray, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=format)
    return buffer.getvalue()


def picture(number: int, size: tuple[int, int] = (20, 10)) -> bytes:
    """Make an encoded image of `size` (width, height) that differs between numbers."""
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return encode(pixels)


def artibench_row(number: int) -> dict:
    """Make a row of ArtiBench: even numbers are clean, odd ones have a relative box."""
    flawed = number % 2 == 1
    box = {"bbox": [0.25, 0.1, 0.75, 0.5], "category": "distortion", "caption": f"Bent leg {number}"}
    return {
        "id": f"{number:04d}",
        "image": {"bytes": picture(number), "path": f"{number:04d}.png"},
        "has_artifacts": flawed,
        "explanation": "A leg is bent." if flawed else "",
        "bboxes": [box] if flawed else [],
        "prompt": f"A dog, number {number}",
        "model": ("SD3.5-Large", "FLUX-schnell", "FLUX-dev", "Qwen-Image", "Nano-Banana")[number % 5],
    }


def write_artibench(folder: Path, rows: list[dict], shards: int = 3) -> Path:
    """Write `data/test-*.parquet`, as `push_to_hub` writes three shards."""
    (folder / "data").mkdir(parents=True)
    shards = min(shards, len(rows))
    data = datasets.Dataset.from_list(rows, features=ARTIBENCH_FEATURES)
    for index in range(shards):
        part = data.shard(shards, index, contiguous=True)
        part.to_parquet(folder / "data" / f"test-{index:05d}-of-{shards:05d}.parquet")
    return folder


def length_delimited(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    """Encode a number as protocol buffers do: seven bits a byte, lowest first, top bit set in all but the last."""
    groups = []
    while True:
        groups.append(value & 0x7F)
        value >>= 7
        if not value:
            return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def tf_example(features: dict[str, bytes | float | int]) -> bytes:
    """Serialize a `tf.train.Example` with one value per feature."""
    entries = b""
    for name, value in features.items():
        match value:
            case bytes():
                feature = length_delimited(1, length_delimited(1, value))
            case float():
                feature = length_delimited(2, length_delimited(1, struct.pack("<f", value)))
            case int():
                feature = length_delimited(3, length_delimited(1, varint(value % (1 << 64))))
        entries += length_delimited(1, length_delimited(1, name.encode()) + length_delimited(2, feature))
    return length_delimited(1, entries)


def tf_record(message: bytes) -> bytes:
    length = struct.pack("<Q", len(message))
    return length + _masked_checksum(length) + message + _masked_checksum(message)


def _masked_checksum(content: bytes) -> bytes:
    checksum = google_crc32c.value(content)
    rotated = (checksum >> 15) | (checksum << 17 & 0xFFFFFFFF)
    return struct.pack("<I", (rotated + 0xA282EAD8) % (1 << 32))


def richhf_example(filename: str, heat_map: np.ndarray) -> dict[str, bytes | float | int]:
    return {
        "filename": filename.encode(),
        "artifact_map": encode(heat_map),
        "misalignment_map": encode(np.zeros_like(heat_map)),
        "prompt_misalignment_label": b"1 1 0 1",
        "aesthetics_score": 0.5,
        "artifact_score": 0.25,
        "misalignment_score": 0.75,
        "overall_score": 0.5,
    }


def write_richhf(folder: Path, split: str, heat_maps: dict[str, np.ndarray], size: tuple[int, int]) -> Path:
    """Write `<split>.tfrecord` with a record for each file name, and `images/<id>.png` of `size` (width, height)."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    for number, filename in enumerate(heat_maps):
        (images / Path(filename).name).write_bytes(picture(number, size))
    records = [tf_record(tf_example(richhf_example(*item))) for item in heat_maps.items()]
    (folder / f"{split}.tfrecord").write_bytes(b"".join(records))
    return folder
