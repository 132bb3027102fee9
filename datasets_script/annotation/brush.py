"""
Masks in the run-length encoding of Label Studio's brush, which is that of the package rle-pack (thi.ng/umbrella) for
the four channels of each pixel.

A stream of bits, the highest of each byte first. Its head: the number of values in 32 bits, the length of a value less
one in 5 bits, and four lengths of counts, each less one, in 4 bits. Then chunks: one bit that says whether one value
follows, to be repeated, or that many values; two bits for which of the four lengths the count has; the count less one;
and the value or the values. Zeros fill the last byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np


_VALUE_BITS = 8
_COUNT_BITS = (3, 4, 8, 16)
_CHANNELS = 4


def encode_brush(mask: np.ndarray) -> list[int]:
    """
    Encode a mask.

    Args:
        mask (`np.ndarray` of shape `(height, width)`, `bool`): The mask.

    Returns:
        `list[int]`: The bytes, as Label Studio stores them in `rle`.
    """
    flat = mask.ravel()
    head = [f"{_CHANNELS * flat.size:032b}", f"{_VALUE_BITS - 1:05b}", *(f"{bits - 1:04b}" for bits in _COUNT_BITS)]
    chunks = []
    for start, stop in pairwise([0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]):
        value, left = f"{255 if flat[start] else 0:0{_VALUE_BITS}b}", _CHANNELS * (stop - start)
        while left:
            count = min(left, 2 ** _COUNT_BITS[-1])
            which, bits = next((which, bits) for which, bits in enumerate(_COUNT_BITS) if count <= 2**bits)
            chunks.append(f"1{which:02b}{count - 1:0{bits}b}{value}")
            left -= count
    stream = "".join([*head, *chunks])
    stream += "0" * (-len(stream) % 8)
    return list(int(stream, 2).to_bytes(len(stream) // 8, "big"))


def decode_brush(encoded: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """
    Decode a mask, whoever encoded it.

    Args:
        encoded (`Sequence[int]`): The bytes.
        size (`tuple[int, int]`): `(width, height)` of the image.

    Returns:
        `np.ndarray` of shape `(height, width)`, `bool`: Where the last channel, opacity, is at least half.

    Raises:
        ValueError: The stream is cut off, or of an image of another size.
    """
    stream, place = "".join(f"{byte:08b}" for byte in encoded), 0

    def read(bits: int) -> int:
        nonlocal place
        if place + bits > len(stream):
            raise ValueError("`rle` of a brush must be whole, got one that ends early")
        place += bits
        return int(stream[place - bits : place], 2)

    total = read(32)
    if total != _CHANNELS * size[0] * size[1]:
        raise ValueError(
            f"`rle` of a brush must hold {_CHANNELS} values for each of {size[0]} × {size[1]} pixels, got {total}"
        )
    value_bits = read(5) + 1
    count_bits = [read(4) + 1 for _ in range(4)]
    values, done = np.zeros(total, dtype=np.int64), 0
    while done < total:
        repeated = read(1)
        count = read(count_bits[read(2)]) + 1
        values[done : done + count] = read(value_bits) if repeated else [read(value_bits) for _ in range(count)]
        done += count
    return values.reshape(size[1], size[0], _CHANNELS)[..., -1] > 127
