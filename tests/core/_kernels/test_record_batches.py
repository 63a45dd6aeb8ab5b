"""The walks over many batches: compiled against interpreted against a dumb reader, on valid and on damaged data."""

from __future__ import annotations

import struct
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.batches import damaged, dumb_check, dumb_row, logs, numbered, raw_batch
from tests.support.kernels import HOWS, load_kernel

from millstream.core.records import (
    ROW_LAST_OFFSET,
    ROW_POSITION,
    ROW_WIDTH,
    STATE_BATCHES,
    STATE_FILE_POSITION,
    STATE_INDEX_BYTES,
    STATE_LARGEST_BATCH_BYTES,
    STATE_POSITION,
    STATE_RECORDS,
    STATE_ROWS,
    STATE_TIME_INDEX_BYTES,
    StopReason,
    new_index_state,
    new_rows,
)

KERNELS = {how: load_kernel("record_batches", how) for how in HOWS}
each_kernel = pytest.mark.parametrize("how", HOWS)


def dumb_batches(data: bytes, position: int, end: int, next_offset: int, room: int) -> tuple[list[int], int, str]:
    rows: list[int] = []
    while position < end:
        if len(rows) == room * ROW_WIDTH:
            return rows, position, "rows_full"
        reason = dumb_check(data, position, end, next_offset)
        if reason != "end":
            return rows, position, reason
        row = dumb_row(data, position)
        rows += row
        position += row[1]
        next_offset = row[3] + 1
        if next_offset == 2**63 and position < end:
            return rows, position, "bad_offset"
    return rows, position, "end"


@given(data=damaged(logs()), next_offset=st.integers(0, 3), room=st.integers(0, 8), start=st.integers(0, 2))
def test_check_batches_agrees_with_a_dumb_walk(data: bytes, next_offset: int, room: int, start: int) -> None:
    start = min(start, len(data)) if room % 2 else 0
    expected, position, reason = dumb_batches(data, start, len(data), next_offset, room)

    for how, kernel in KERNELS.items():
        rows = new_rows(room)
        count, reached, code = kernel.check_batches(data, start, len(data), next_offset, rows)
        assert (list(rows[: count * ROW_WIDTH]), reached, StopReason(code).name.lower()) == (
            expected,
            position,
            reason,
        ), how


@each_kernel
def test_check_batches_at_the_end_of_all_offsets(how: str) -> None:
    last = raw_batch(numbered(2), base_offset=2**63 - 2)
    rows = new_rows(4)

    assert KERNELS[how].check_batches(last, 0, len(last), 0, rows) == (1, len(last), StopReason.END)
    assert rows[ROW_LAST_OFFSET] == 2**63 - 1
    assert KERNELS[how].check_batches(last * 2, 0, 2 * len(last), 0, rows) == (1, len(last), StopReason.BAD_OFFSET)
    beyond = raw_batch(numbered(2), base_offset=2**63 - 1)
    assert KERNELS[how].check_batches(beyond, 0, len(beyond), 0, rows) == (0, 0, StopReason.BAD_OFFSET)


@each_kernel
def test_bounds_that_are_none_are_refused(how: str) -> None:
    kernel, rows = KERNELS[how], new_rows(1)
    for start, end in [(-1, 1), (0, 11), (5, 4)]:
        with pytest.raises(ValueError, match="does not lie within"):
            kernel.check_batches(bytes(10), start, end, 0, rows)
        with pytest.raises(ValueError, match="does not lie within"):
            kernel.find_batch(bytes(10), start, end, 0, 10)
    with pytest.raises(ValueError, match="16 integers"):
        kernel.index_batches(bytes(10), array("q", [0]), bytearray(8), bytearray(12), rows)


def dumb_index(data: bytes, interval: int, base: int) -> tuple[bytes, bytes, list[int], int, str]:
    index, times = b"", b""
    rows: list[int] = []
    since, greatest, greatest_offset, indexed, epoch, next_offset, position = 0, -1, -1, -1, -1, base, 0
    while position < len(data):
        reason = dumb_check(data, position, len(data), next_offset)
        if reason == "end" and dumb_row(data, position)[3] - base > 2**31 - 1:
            reason = "bad_offset"
        if reason != "end":
            return index, times, rows, position, reason
        row = dumb_row(data, position)
        if row[7] > greatest:
            greatest, greatest_offset = row[7], row[3]
        if since > interval:
            index += struct.pack(">II", row[3] - base, position + 1000)
            since = 0
            if greatest > indexed:
                times += struct.pack(">qI", greatest, greatest_offset - base)
                indexed = greatest
        since += row[1]
        if row[8] >= 0 or row[5] & 0x20 or row[4] > epoch:
            rows += row
        epoch = max(epoch, row[4])
        next_offset, position = row[3] + 1, position + row[1]
    return index, times, rows, position, "end"


@given(data=damaged(logs(base=5_000_000_000)), interval=st.integers(0, 400))
def test_index_batches_agrees_with_a_dumb_walk(data: bytes, interval: int) -> None:
    base = 5_000_000_000
    index, times, rows, position, reason = dumb_index(data, interval, base)

    for how, kernel in KERNELS.items():
        state = new_index_state(base, index_interval_bytes=interval, file_position=1000)
        offset_index, time_index, out = bytearray(80), bytearray(120), new_rows(10)
        code = kernel.index_batches(data, state, offset_index, time_index, out)
        assert StopReason(code).name.lower() == reason, how
        assert state[STATE_POSITION] == position, how
        assert offset_index[: state[STATE_INDEX_BYTES]] == index, how
        assert time_index[: state[STATE_TIME_INDEX_BYTES]] == times, how
        assert list(out[: state[STATE_ROWS] * ROW_WIDTH]) == rows, how


@given(data=logs(size_max=10), cuts=st.lists(st.integers(0, 3000), max_size=5), room=st.integers(1, 3))
def test_index_batches_carries_over_chunks_and_full_outputs(data: bytes, cuts: list[int], room: int) -> None:
    index, times, rows, *_ = dumb_index(data, 100, 0)
    for how, kernel in KERNELS.items():
        state = new_index_state(0, index_interval_bytes=100, file_position=1000)
        got_index, got_times, got_rows = b"", b"", list[int]()
        begin = 0
        for end in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
            chunk = data[begin:end]
            state[STATE_POSITION], state[STATE_FILE_POSITION] = 0, 1000 + begin
            while True:
                offset_index, time_index, out = bytearray(8 * room), bytearray(12 * room), new_rows(room)
                reason = kernel.index_batches(chunk, state, offset_index, time_index, out)
                got_index += offset_index[: state[STATE_INDEX_BYTES]]
                got_times += time_index[: state[STATE_TIME_INDEX_BYTES]]
                got_rows += [
                    number + begin if at % ROW_WIDTH == ROW_POSITION else number
                    for at, number in enumerate(out[: state[STATE_ROWS] * ROW_WIDTH])
                ]
                if reason != StopReason.ROWS_FULL:
                    break
            assert reason in {StopReason.END, StopReason.TRUNCATED}
            begin += state[STATE_POSITION]
        assert (got_index, got_times, got_rows) == (index, times, rows), how
        batches, _, _ = dumb_batches(data, 0, len(data), 0, 100)
        assert state[STATE_BATCHES] == len(batches) // ROW_WIDTH
        assert state[STATE_RECORDS] == sum(batches[11::ROW_WIDTH])
        assert state[STATE_LARGEST_BATCH_BYTES] == max(batches[1::ROW_WIDTH], default=0)


@each_kernel
def test_an_offset_too_far_from_the_segments_base_stops_the_index(how: str) -> None:
    data = raw_batch(numbered(1), base_offset=2**31 - 1) + raw_batch(numbered(1), base_offset=2**31)
    state = new_index_state(0, index_interval_bytes=0)

    reason = KERNELS[how].index_batches(data, state, bytearray(80), bytearray(120), new_rows(4))

    assert (reason, state[STATE_BATCHES]) == (StopReason.BAD_OFFSET, 1)


def dumb_trim(
    data: bytes, offset: int, end_offset: int, size_max: int, at_least_one: bool
) -> tuple[int, int, int, int, int, int]:
    position, start, behind, first, following = 0, -1, -1, offset, offset
    corrupt, needed = -1, 0
    while position < len(data):
        reason = dumb_check(data, position, len(data), behind, check_crc=False)
        rest = len(data) - position
        if reason == "truncated":
            if start < 0 and (rest < 8 or struct.unpack_from(">q", data, position)[0] < end_offset):
                size = struct.unpack_from(">i", data, position + 8)[0] + 12 if rest >= 12 else 0
                needed = size if size > rest else 61
            break
        if reason != "end":
            corrupt = position
            break
        row = dumb_row(data, position)
        if row[3] >= end_offset:
            break
        if row[3] >= offset:
            if start < 0 and row[1] > size_max and not at_least_one:
                break
            if start >= 0 and position + row[1] - start > size_max:
                break
            if dumb_check(data, position, len(data), behind) != "end":
                corrupt = position
                break
            if start < 0:
                start, first = position, row[2]
            following = row[3] + 1
        behind = row[3] + 1
        position += row[1]
    if start < 0:
        return position, position, offset, offset, corrupt, needed
    return start, position, first, following, corrupt, 0


@given(
    data=damaged(logs()),
    offset=st.integers(0, 40),
    end_offset=st.integers(0, 50),
    size_max=st.integers(0, 1500),
    at_least_one=st.booleans(),
)
def test_trim_batches_agrees_with_a_dumb_trim(
    data: bytes, offset: int, end_offset: int, size_max: int, at_least_one: bool
) -> None:
    expected = dumb_trim(data, offset, end_offset, size_max, at_least_one)

    for how, kernel in KERNELS.items():
        assert kernel.trim_batches(data, offset, end_offset, size_max, at_least_one) == expected, how


@each_kernel
def test_a_fetch_gets_what_it_may_see(how: str) -> None:
    trim = KERNELS[how].trim_batches
    batches = [raw_batch(numbered(10), base_offset=10 * n) for n in range(4)]
    size, data = len(batches[0]), b"".join(batches)

    # In the middle of a batch: the whole batch; below the end offset: whole batches only.
    assert trim(data, 15, 40, 10**6, True) == (size, 4 * size, 10, 40, -1, 0)
    assert trim(data, 15, 39, 10**6, True) == (size, 3 * size, 10, 30, -1, 0)
    assert trim(data, 15, 40, 2 * size, True) == (size, 3 * size, 10, 30, -1, 0)
    # One batch however small the bound, unless it isn't wanted.
    assert trim(data, 15, 40, 1, True) == (size, 2 * size, 10, 20, -1, 0)
    assert trim(data, 15, 40, 1, False) == (size, size, 15, 15, -1, 0)
    # Cut off: the size to read; nothing at all wanted of what is not committed.
    assert trim(data[: 2 * size - 1], 15, 40, 10**6, True) == (size, size, 15, 15, -1, size)
    assert trim(data[: size + 5], 15, 40, 10**6, True) == (size, size, 15, 15, -1, 61)
    assert trim(data[: 2 * size - 1], 15, 10, 10**6, True) == (size, size, 15, 15, -1, 0)
    # A flipped bit: what lies before is given, and where it is.
    flipped = bytearray(data)
    flipped[2 * size + 70] ^= 1
    assert trim(flipped, 0, 40, 10**6, True) == (0, 2 * size, 0, 20, 2 * size, 0)
    assert trim(flipped, 20, 40, 10**6, True) == (2 * size, 2 * size, 20, 20, 2 * size, 0)
    assert trim(flipped, 30, 40, 10**6, True) == (3 * size, 4 * size, 30, 40, -1, 0)


@given(
    sizes=st.lists(st.integers(0, 40) | st.integers(690, 730) | st.integers(3000, 3010), min_size=1, max_size=9),
    flipped=st.integers(-1, 8),
    bit=st.integers(0, 10**6),
)
def test_checksums_of_batches_of_many_sizes(sizes: list[int], flipped: int, bit: int) -> None:
    """Small ones are summed side by side, and what is left over or large is not: a bad one is found in any place."""
    batches = [bytearray(raw_batch(bytes(size), base_offset=n)) for n, size in enumerate(sizes)]
    ends = [sum(map(len, batches[: n + 1])) for n in range(len(batches))]
    expected = (0, ends[-1], 0, len(sizes), -1, 0)
    if 0 <= flipped < len(batches):
        summed = len(batches[flipped]) - 21
        # Not in last_offset_delta, which is looked at before the sum.
        at = 27 + bit % (summed - 6)
        batches[flipped][at] ^= 1 << bit % 8
        start = ends[flipped - 1] if flipped else 0
        expected = (0, start, 0, flipped, start, 0)

    for how, kernel in KERNELS.items():
        assert kernel.trim_batches(b"".join(batches), 0, 100, 10**6, True) == expected, how


@given(before=st.binary(max_size=200), data=logs(size_max=2), low=st.integers(0, 3), high=st.integers(0, 10))
def test_find_batch_agrees_with_trying_each_byte(before: bytes, data: bytes, low: int, high: int) -> None:
    data = before + data
    expected = -1
    for position in range(len(data)):
        if dumb_check(data, position, len(data), low) == "end" and dumb_row(data, position)[2] <= high:
            expected = position
            break

    for how, kernel in KERNELS.items():
        assert kernel.find_batch(data, 0, len(data), low, high) == expected, how


@each_kernel
def test_find_batch_behind_a_lying_length(how: str) -> None:
    good = raw_batch(numbered(3), base_offset=7)
    bad = raw_batch(numbered(3), base_offset=3, batch_length=10**9)

    assert KERNELS[how].find_batch(bad + good, 0, len(bad + good), 3, 2**62) == len(bad)


@each_kernel
def test_set_log_fields(how: str) -> None:
    stamp = KERNELS[how].set_log_fields
    batch = raw_batch(numbered(3), max_timestamp=2)
    buffer = bytearray(batch + b"next")

    stamp(buffer, 2**63 - 4, 2**31 - 1, max_timestamp=2)
    assert buffer == raw_batch(numbered(3), max_timestamp=2, base_offset=2**63 - 4, leader_epoch=2**31 - 1) + b"next"
    stamp(buffer, 5, 6, max_timestamp=-(2**63))
    assert buffer == raw_batch(numbered(3), max_timestamp=-(2**63), base_offset=5, leader_epoch=6) + b"next"
    stamp(memoryview(buffer), 5, 7, log_append_time_ms=2**63 - 1)
    expected = raw_batch(numbered(3), max_timestamp=2**63 - 1, base_offset=5, leader_epoch=7, attributes=8)
    assert buffer == expected + b"next"
    stamp(buffer, 0, 0)
    assert buffer[21:] == expected[21:] + b"next"
    with pytest.raises(ValueError, match="in a buffer of"):
        stamp(bytearray(batch[:-1]), 0, 0)
    with pytest.raises(ValueError, match="are no batch"):
        stamp(bytearray(60), 0, 0)


@given(data=st.binary(max_size=200), numbers=st.tuples(*[st.integers(-(2**63), 2**63 - 1)] * 3))
def test_random_bytes_and_numbers_at_their_limits(data: bytes, numbers: tuple[int, int, int]) -> None:
    results: list[Any] = []
    for kernel in KERNELS.values():
        rows = new_rows(3)
        state = new_index_state(0, index_interval_bytes=numbers[0], next_offset=numbers[1])
        results.append(
            (
                kernel.check_batches(data, 0, len(data), numbers[0], rows),
                kernel.trim_batches(data, *numbers),
                kernel.find_batch(data, 0, len(data), *numbers[:2]),
                kernel.index_batches(data, state, bytearray(16), bytearray(24), rows),
                list(state),
                list(rows),
            )
        )
    assert results[0] == results[1] == results[2]
