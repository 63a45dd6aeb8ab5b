"""Rows sorted: compiled against interpreted against Python's own sort."""

from __future__ import annotations

import math
import struct
from array import array
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support.kernels import HOWS, load_kernel

KERNELS = {how: load_kernel("rows", how, "millstream.hadoop_loader._kernels") for how in HOWS}
INT64 = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)
DOUBLES = st.floats() | st.sampled_from([0.0, -0.0, math.inf, -math.inf, math.nan, -math.nan, 5e-324, -5e-324])


def bitmap(valid: list[bool], first: int) -> bytes:
    """Return Arrow's bitmap of these from bit `first` on, those before it set."""
    number = sum(bit << at for at, bit in enumerate([True] * first + valid))
    return number.to_bytes((first + len(valid)) // 8 + 1, "little")


def rows_in_order(kernel: Any, words: array[int], *, doubles: bool, descending: bool, valid: bytes, first: int) -> Any:
    count = len(words)
    rows = array("I", bytes(8 * count))
    keys, counts = memoryview(bytearray(16 * count)).cast("q"), array("q", [7]) * kernel.COUNTS
    if count:
        keys[count:] = memoryview(words)
    start = kernel.sort_rows(keys[count:], doubles, descending, valid, first, keys, rows, counts)
    return rows[start : start + count].tolist()


def place(number: float | None, *, descending: bool) -> tuple[int, float]:
    if number is None:
        return 2, 0
    if math.isnan(number):
        return 1, 0
    return 0, -number if descending else number


@settings(deadline=None)
@given(
    numbers=st.lists(st.none() | INT64, max_size=12) | st.lists(st.none() | DOUBLES, max_size=12),
    descending=st.booleans(),
    first=st.integers(0, 9),
)
@example(numbers=[-(2**63), 2**63 - 1, 0, None, -1, 2**63 - 1], descending=True, first=0)
@example(numbers=[0.0, -0.0, None, math.nan, -math.inf, -math.nan, math.inf, -0.0], descending=True, first=3)
@example(numbers=[None, None], descending=False, first=1)
def test_rows_are_in_the_order_of_their_numbers_and_equal_ones_keep_theirs(
    numbers: list[float | None], descending: bool, first: int
) -> None:
    doubles = any(isinstance(number, float) for number in numbers)
    given_ = [0 if number is None else number for number in numbers]
    words = array("q")
    words.frombytes(b"".join(struct.pack("=d" if doubles else "=q", number) for number in given_))
    valid = bitmap([number is not None for number in numbers], first) if None in numbers else b""
    expected = sorted(range(len(numbers)), key=lambda row: place(numbers[row], descending=descending))
    for how, kernel in KERNELS.items():
        found = rows_in_order(kernel, words, doubles=doubles, descending=descending, valid=valid, first=first)
        assert found == expected, how


@pytest.mark.parametrize("how", HOWS)
def test_too_little_room_is_refused(how: str) -> None:
    kernel = KERNELS[how]
    words = array("q", [1, 2])
    full = array("q", bytes(8 * kernel.COUNTS))
    with pytest.raises(ValueError, match="is too little for 2"):
        kernel.sort_rows(words, False, False, b"", 0, array("q", bytes(24)), array("I", bytes(16)), full)
    with pytest.raises(ValueError, match="do not lie within 1 bytes"):
        kernel.sort_rows(words, False, False, b"\xff", 7, array("q", bytes(32)), array("I", bytes(16)), full)
