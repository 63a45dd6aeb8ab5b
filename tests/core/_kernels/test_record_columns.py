"""Records into columns: compiled against interpreted against a dumb reader."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.batches import (
    INT64,
    RawRecord,
    damaged,
    dumb_check,
    dumb_records,
    dumb_row,
    logs,
    numbered,
    raw_batch,
    raw_record,
    record_lists,
    wrapped,
)
from tests.support.kernels import HOWS, load_kernel

from millstream.core.records import StopReason

KERNELS = {how: load_kernel("record_columns", how) for how in HOWS}
each_kernel = pytest.mark.parametrize("how", HOWS)
COLUMNS = 9


def columns(capacity: int) -> list[array[int]]:
    return [array("q", [-9] * capacity) for _ in range(COLUMNS)]


def dumb_rows(
    payload: bytes, shift: int, count: int, base: int, timestamp: int, fixed: bool, batch: int
) -> list[tuple[int, ...]] | None:
    records, how = dumb_records(payload, count)
    if how != "whole" or any(record.offset_delta < 0 for record in records):
        return None
    return [
        (
            wrapped(base + record.offset_delta),
            timestamp if fixed else wrapped(timestamp + record.timestamp_delta),
            record.key[0] + shift,
            record.key[1],
            record.value[0] + shift,
            record.value[1],
            record.header_position + shift,
            record.header_count,
            batch,
        )
        for record in records
    ]


def dumb_locate(data: bytes, room: int) -> tuple[list[tuple[int, ...]], int, str]:
    rows: list[tuple[int, ...]] = []
    position = 0
    while position < len(data):
        if len(data) - position < 61:
            return rows, position, "truncated"
        reason = dumb_check(data, position, len(data), -(2**63), check_crc=False)
        if reason not in {"end", "bad_offset"}:
            return rows, position, reason
        _, size, base, _, _, attributes, base_timestamp, max_timestamp, *_, count, crc = dumb_row(data, position)
        control, fixed = attributes & 0x20, attributes & 0x08
        if not control:
            if attributes & 7:
                return rows, position, "compressed"
            if count < 0:
                return rows, position, "bad_record"
            if count > room - len(rows):
                return rows, position, "rows_full" if count <= size // 7 else "bad_record"
        if raw_batch(data[position + 61 : position + size], **fields_of(data, position))[17:21] != crc.to_bytes(
            4, "big"
        ):
            return rows, position, "bad_crc"
        if not control:
            located = dumb_rows(
                data[position + 61 : position + size],
                position + 61,
                count,
                base,
                max_timestamp if fixed else base_timestamp,
                bool(fixed),
                position,
            )
            if located is None:
                return rows, position, "bad_record"
            rows += located
        position += size
    return rows, position, "end"


def fields_of(data: bytes, position: int) -> dict[str, int]:
    row = dumb_row(data, position)
    names = ("attributes", "base_timestamp", "max_timestamp", "producer_id", "producer_epoch", "base_sequence", "count")
    return dict(zip(names, row[5:12], strict=True)) | {"last_offset_delta": row[3] - row[2]}


@given(data=damaged(logs(codecs=True)), room=st.integers(0, 20))
def test_locate_records_agrees_with_a_dumb_reader(data: bytes, room: int) -> None:
    rows, position, reason = dumb_locate(data, room)

    for how, kernel in KERNELS.items():
        out = columns(room)
        filled, reached, code = kernel.locate_records(data, 0, len(data), 0, True, *out)
        # Without room there is no telling more than that.
        if room or not data:
            assert (reached, StopReason(code).name.lower()) == (position, reason), how
        assert list(zip(*out, strict=True))[:filled] == rows, how


@given(
    records=record_lists(),
    base=INT64,
    timestamp=INT64,
    fixed=st.booleans(),
    first=st.integers(0, 3),
    off=st.integers(-1, 1),
)
def test_locate_payload_agrees_with_a_dumb_reader(
    records: list[RawRecord], base: int, timestamp: int, fixed: bool, first: int, off: int
) -> None:
    payload, count = b"".join(map(raw_record, records)), len(records) + off
    expected = dumb_rows(payload, 0, count, base, timestamp, fixed, 77)

    for how, kernel in KERNELS.items():
        out = columns(first + len(records) + 1)
        code = kernel.locate_payload(payload, count, base, timestamp, fixed, 77, first, *out)
        if expected is None:
            assert code == StopReason.BAD_RECORD, how
        else:
            assert code == StopReason.END, how
            rows = list(zip(*out, strict=True))
            assert rows[first : first + count] == expected, how
            assert set(rows[:first] + rows[first + count :]) <= {(-9,) * COLUMNS}, how


@each_kernel
def test_full_columns_carry_on(how: str) -> None:
    data = b"".join(raw_batch(numbered(3), base_offset=3 * n) for n in range(4))
    size, out = len(data) // 4, columns(7)
    locate = KERNELS[how].locate_records

    assert locate(data, 0, len(data), 0, True, *out) == (6, 2 * size, StopReason.ROWS_FULL)
    assert list(out[0][:6]) == [0, 1, 2, 3, 4, 5]
    assert locate(data, 2 * size, len(data), 0, True, *out) == (6, 4 * size, StopReason.END)
    assert list(out[0][:6]) == [6, 7, 8, 9, 10, 11]
    assert locate(data, 3 * size, len(data), 4, True, *out) == (7, 4 * size, StopReason.END)


@each_kernel
def test_what_is_asked_for_has_to_be_there(how: str) -> None:
    locate, out = KERNELS[how].locate_records, columns(3)
    for start, end, first in [(-1, 1, 0), (0, 11, 0), (5, 4, 0), (0, 10, 4), (0, 10, -1)]:
        with pytest.raises(ValueError, match="does not lie within"):
            locate(bytes(10), start, end, first, True, *out)
    with pytest.raises(ValueError, match="does not lie within"):
        KERNELS[how].locate_payload(bytes(10), 1, 0, 0, False, 0, 4, *out)


@each_kernel
def test_a_damaged_batch_can_be_looked_into_without_its_crc(how: str) -> None:
    data = raw_batch(numbered(3), crc=1)
    locate, out = KERNELS[how].locate_records, columns(3)

    assert locate(data, 0, len(data), 0, True, *out) == (0, 0, StopReason.BAD_CRC)
    assert locate(data, 0, len(data), 0, False, *out) == (3, len(data), StopReason.END)


@given(data=st.binary(max_size=300), count=st.integers(-5, 400), base=INT64)
def test_random_bytes(data: bytes, count: int, base: int) -> None:
    batch = raw_batch(data, count=count, base_timestamp=base)
    results: list[tuple[object, ...]] = []
    for kernel in KERNELS.values():
        out = columns(60)
        reason = kernel.locate_payload(data, count, base, base, False, 0, 0, *out)
        results.append((reason, kernel.locate_records(batch, 0, len(batch), 0, True, *columns(60))))
        if reason == StopReason.END:
            results[-1] += (out,)
    assert results[0] == results[1] == results[2]
