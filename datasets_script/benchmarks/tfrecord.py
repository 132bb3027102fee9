"""
Reader of TFRecord files with `tf.train.Example` messages, without TensorFlow.

A record consists of its length (uint64, little endian), the masked CRC-32C of these 8 bytes (uint32), the message, and
the masked CRC-32C of the message. The message is in the wire format of protocol buffers.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from .base import BenchmarkError


Feature = list[bytes] | list[float] | list[int]

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
_GIT_LFS_POINTER = b"version https://git-lfs"


class TFRecordError(BenchmarkError):
    """Raised if a file is truncated, damaged or not a TFRecord file; the message names it and the record's offset."""


def read_examples(path: Path, start: int = 0, stop: int | None = None) -> Iterator[dict[str, Feature]]:
    """
    Read the examples of a file in order.

    Args:
        path (`Path`): An uncompressed TFRecord file.
        start (`int`, *optional*, defaults to 0): Number of the first example to read; those before are skipped without
            reading more than their lengths.
        stop (`int`, *optional*): Number of the example to stop before; by default all are read.

    Returns:
        `Iterator[dict[str, list]]`: The values of each feature, `bytes`, `float` or `int`, by its name.

    Raises:
        TFRecordError: a record is truncated, has a wrong checksum, or is not a `tf.train.Example`.
        ImportError: `google-crc32c` is not installed.
    """
    for offset, message in read_records(path, start, stop):
        try:
            yield parse_example(message)
        except ValueError as error:
            raise TFRecordError(f"{path}, record at byte {offset}: not a tf.train.Example, {error}") from error


def read_records(path: Path, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
    """
    Read the records of a file, each with its offset in bytes.

    Args:
        path, start, stop: As in [`read_examples`].

    Raises:
        TFRecordError: a record is truncated or has a wrong checksum.
        ImportError: `google-crc32c` is not installed.
    """
    with path.open("rb") as file:
        if file.read(len(_GIT_LFS_POINTER)) == _GIT_LFS_POINTER:
            raise TFRecordError(f"{path} is a pointer of Git LFS, not the file; fetch it with `git lfs pull`")
        file.seek(0)
        offset = 0
        for index in count():
            if index == stop or not (header := file.read(12)):
                return
            place = f"{path}, record at byte {offset}"
            length = struct.unpack("<Q", _checked(header, 8, f"{place}, its length"))[0]
            # A length may pass its checksum and still exceed the file, so compare before reading that many bytes.
            remaining = path.stat().st_size - offset - 12
            if length + 4 > remaining:
                raise TFRecordError(f"{place}: the file is cut short, {length + 4} bytes expected, {remaining} left")
            if index < start:
                file.seek(length + 4, os.SEEK_CUR)
            else:
                yield offset, _checked(file.read(length + 4), length, place)
            offset += 16 + length


def _checked(content: bytes, length: int, place: str) -> bytes:
    """Return the first `length` bytes, after comparing them with their checksum in the 4 bytes that follow."""
    if len(content) != length + 4:
        raise TFRecordError(f"{place}: the file is cut short, {length + 4} bytes expected, {len(content)} left")
    stored = struct.unpack("<I", content[length:])[0]
    if stored != masked_crc32c(content[:length]):
        raise TFRecordError(f"{place}: wrong checksum; the file is damaged or no TFRecord file")
    return content[:length]


def masked_crc32c(content: bytes) -> int:
    """Compute the CRC-32C as TFRecord files store it: rotated right by 15 bits, plus a constant."""
    try:
        import google_crc32c
    except ImportError as error:
        raise ImportError("reading TFRecord files needs google-crc32c: pip install 'artiagent[richhf]'") from error
    checksum = google_crc32c.value(content)
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def parse_example(message: bytes) -> dict[str, Feature]:
    """
    Parse the features of a serialized `tf.train.Example`.

    Raises:
        ValueError: `message` is not such an example.
    """
    features: dict[str, Feature] = {}
    for entry in _messages(b"".join(_messages(message, 1)), 1):
        fields = dict(_fields(entry))
        features[_bytes(fields.get(1, b"")).decode()] = _parse_feature(_bytes(fields.get(2, b"")))
    return features


def _parse_feature(message: bytes) -> Feature:
    for number, values in _fields(message):
        match number:
            case 1:
                return _messages(_bytes(values), 1)
            case 2:
                return [number for chunk in _values(_bytes(values)) for number in _floats(chunk)]
            case 3:
                return [number for chunk in _values(_bytes(values)) for number in _integers(chunk)]
    return []


def _messages(message: bytes, number: int) -> list[bytes]:
    """Return the length-delimited fields of one number."""
    return [_bytes(value) for found, value in _fields(message) if found == number]


def _values(message: bytes) -> list[bytes | int]:
    """Return field 1 of a list of numbers, which are packed into one value or stored one by one."""
    return [value for number, value in _fields(message) if number == 1]


def _floats(chunk: bytes | int) -> list[float]:
    packed = struct.pack("<I", chunk) if isinstance(chunk, int) else chunk
    if len(packed) % 4:
        raise ValueError(f"packed floats must take 4 bytes each, got {len(packed)} bytes")
    return [value for (value,) in struct.iter_unpack("<f", packed)]


def _integers(chunk: bytes | int) -> list[int]:
    if isinstance(chunk, int):
        return [_signed(chunk)]
    values, position = [], 0
    while position < len(chunk):
        value, position = _varint(chunk, position)
        values.append(_signed(value))
    return values


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _bytes(value: bytes | int) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number stands where bytes should")
    return value


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the fields of a message: number, and `bytes` for length-delimited ones, else the unsigned integer."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        match key & 7:
            case wire if wire == _VARINT:
                value, position = _varint(message, position)
                yield key >> 3, value
                continue
            case wire if wire == _LENGTH_DELIMITED:
                size, position = _varint(message, position)
            case wire if wire in (_FIXED32, _FIXED64):
                size = 4 if wire == _FIXED32 else 8
            case wire:
                raise ValueError(f"wire type {wire} is unknown")
        content = message[position : position + size]
        if len(content) != size:
            raise ValueError(f"a field of {size} bytes is cut short, {len(content)} left")
        position += size
        yield key >> 3, content if key & 7 == _LENGTH_DELIMITED else int.from_bytes(content, "little")


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """Decode the integer at `position`, seven bits per byte; also return the position after it."""
    value = shift = 0
    while shift < 70:
        if position >= len(message):
            raise ValueError("an integer is cut short")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
    raise ValueError("an integer has more than 64 bits")
