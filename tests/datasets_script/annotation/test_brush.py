"""Label Studio's run-length encoding of brushes: back and forth, and read by what its description says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from datasets_script.annotation.brush import decode_brush, encode_brush


def described(encoded: list[int]) -> np.ndarray:
    """Read an encoding bit by bit, as the package rle-pack describes it, into its values."""

    def bits() -> Iterator[int]:
        for byte in encoded:
            yield from ((byte >> shift) & 1 for shift in range(7, -1, -1))

    stream = bits()

    def number(length: int) -> int:
        value = 0
        for _ in range(length):
            value = 2 * value + next(stream)
        return value

    total, value_bits = number(32), number(5) + 1
    lengths = [number(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        if number(1):
            count = number(lengths[number(2)]) + 1
            values += [number(value_bits)] * count
        else:
            count = number(lengths[number(2)]) + 1
            values += [number(value_bits) for _ in range(count)]
    return np.array(values)


@given(arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_masks_go_there_and_back(mask: np.ndarray) -> None:
    encoded = encode_brush(mask)
    assert np.array_equal(decode_brush(encoded, mask.shape[::-1]), mask)
    values = described(encoded).reshape(*mask.shape, 4)
    assert np.array_equal(values, np.where(mask, 255, 0)[..., None].repeat(4, axis=2))
    assert all(0 <= byte <= 255 for byte in encoded)


def test_long_runs_are_divided_and_stay_short() -> None:
    mask = np.zeros((300, 400), bool)
    mask[100:250, 50:60] = True
    encoded = encode_brush(mask)
    assert np.array_equal(decode_brush(encoded, (400, 300)), mask)
    assert len(encoded) < 1500


def test_a_stream_written_by_hand_is_read() -> None:
    # Two pixels: one transparent by a run of 4 zeros, one opaque by four values one by one; counts of 3 bits.
    bits = f"{8:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}" + f"1{0:02b}{3:03b}{0:08b}" + f"0{0:02b}{3:03b}"
    bits += "".join(f"{value:08b}" for value in (9, 8, 7, 200))
    bits += "0" * (-len(bits) % 8)
    encoded = [int(bits[start : start + 8], 2) for start in range(0, len(bits), 8)]
    assert decode_brush(encoded, (2, 1)).tolist() == [[False, True]]


def test_what_is_cut_off_or_of_another_image_is_refused() -> None:
    encoded = encode_brush(np.eye(5, dtype=bool))
    with pytest.raises(ValueError, match="must be whole"):
        decode_brush(encoded[:-3], (5, 5))
    with pytest.raises(ValueError, match="for each of 4 × 5 pixels, got 100"):
        decode_brush(encoded, (4, 5))
