"""The consumer's kernel: compiled against interpreted against a dumb reading of the same bytes."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.batches import RawRecord, damaged, logs, raw_batch, record_lists, wrapped
from tests.support.kernels import HOWS, load_kernel

from millstream.core.records import RecordColumns, iter_batches, iter_records, read_header
from millstream.core.records.columns import COLUMN_NAMES

KERNELS = {how: load_kernel("consumer_records", how) for how in HOWS}
each_kernel = pytest.mark.parametrize("how", HOWS)
TIMESTAMP = 1_790_000_000_000


def fields_of(record: Any) -> tuple[Any, ...]:
    return (
        record.topic,
        record.partition,
        record.offset,
        record.timestamp,
        record.timestamp_type,
        record.key,
        record.value,
        record.headers,
        record.leader_epoch,
    )


def build(kernel: Any, data: bytes, start: int = 0, end: int | None = None) -> list[Any]:
    columns = RecordColumns(1000)
    columns.locate(data)
    every = [getattr(columns, name) for name in COLUMN_NAMES]
    built: list[Any] = kernel.build_records(data, "t", 3, start, columns.count if end is None else end, *every)
    return built


@given(record_lists(), st.integers(0, 2**40), st.booleans(), st.integers(-1, 2**31 - 1))
def test_records_are_those_of_the_plain_reader(
    records: list[RawRecord], base_offset: int, is_append_time: bool, epoch: int
) -> None:
    batch = raw_batch(
        records,
        base_offset=base_offset,
        base_timestamp=TIMESTAMP,
        max_timestamp=TIMESTAMP + 5,
        attributes=8 if is_append_time else 0,
        leader_epoch=epoch,
    )
    wanted = [
        ("t", 3, one.offset, wrapped(one.timestamp), int(is_append_time), one.key, one.value, one.headers, epoch)
        for one in iter_records(batch)
    ]
    for how, kernel in KERNELS.items():
        assert [fields_of(one) for one in build(kernel, batch)] == wanted, how


@each_kernel
def test_a_part_of_the_rows_and_several_batches(how: str) -> None:
    data = b"".join(
        raw_batch(
            [RawRecord(index, index, b"k%d" % index, None, ((b"h", b"%d" % index),)) for index in range(4)],
            base_offset=4 * number,
            base_timestamp=TIMESTAMP,
            leader_epoch=number,
        )
        for number in range(3)
    )
    built = build(KERNELS[how], data, 2, 9)
    assert [one.offset for one in built] == [2, 3, 4, 5, 6, 7, 8]
    assert [one.leader_epoch for one in built] == [0, 0, 1, 1, 1, 1, 2]
    assert [one.headers for one in built][:2] == [(("h", b"2"),), (("h", b"3"),)]
    assert build(KERNELS[how], data, 5, 5) == []


@each_kernel
def test_rows_that_lie_outside_of_the_buffer_are_refused(how: str) -> None:
    kernel = KERNELS[how]
    data = raw_batch([RawRecord(0, 0, b"key", b"value", ((b"h", b"x"),))])
    for name, value in (
        ("key_positions", len(data)),
        ("key_positions", -1),
        ("key_sizes", 2**40),
        ("value_positions", len(data) - 1),
        ("value_sizes", len(data)),
        ("header_positions", len(data) - 1),
        ("header_positions", -1),
        ("header_counts", 1000),
        ("batch_positions", len(data)),
        ("batch_positions", -2),
    ):
        columns = RecordColumns(1)
        columns.locate(data)
        getattr(columns, name)[0] = value
        with pytest.raises(ValueError, match=r"bytes|header"):
            kernel.build_records(data, "t", 0, 0, 1, *(getattr(columns, column) for column in COLUMN_NAMES))
    with pytest.raises(ValueError, match="does not lie within columns of 1"):
        kernel.build_records(data, "t", 0, 0, 2, *(getattr(columns, column) for column in COLUMN_NAMES))


@each_kernel
def test_a_record_made_by_hand_is_as_one_that_was_read(how: str) -> None:
    kernel = KERNELS[how]
    headers = (("a", None), ("b", b"x" * 300), ("", b""))
    raw = [(b"a", None), (b"b", b"x" * 300), (b"", b"")]
    data = raw_batch([RawRecord(0, 0, None, b"value", tuple(raw))], base_offset=7, base_timestamp=TIMESTAMP)
    (read,) = build(kernel, data)
    made = kernel.ConsumerRecord("t", 3, 7, TIMESTAMP, 0, None, b"value", headers, read.leader_epoch)
    assert made == read
    assert hash(made) == hash(read)
    assert made.headers == headers
    assert made != kernel.ConsumerRecord("t", 3, 7, TIMESTAMP, 0, b"", b"value", headers, read.leader_epoch)
    assert repr(made) == f"ConsumerRecord(t-3@7, timestamp={TIMESTAMP}, key=None, value=b'value', headers=3)"
    with pytest.raises(AttributeError):
        made.offset = 8


def test_a_record_can_be_pickled() -> None:
    record = KERNELS["compiled"].ConsumerRecord("t", 0, 1, 2, 1, b"key", None, (("h", b"1"),), 5)
    assert pickle.loads(pickle.dumps(record)) == record


def dumb_survey(data: bytes, offset: int) -> tuple[int, int, int, int, int, int]:
    """Start, end, next offset, epoch, records and kinds, for data that is whole and right."""
    start, end, next_offset, epoch, records, kinds = -1, 0, offset, -1, 0, 0
    position = 0
    for header, batch in iter_batches(data):
        end = position + len(batch)
        if header.last_offset >= offset or start >= 0:
            start = position if start < 0 else start
            next_offset, epoch = header.last_offset + 1, header.partition_leader_epoch
            records += 0 if header.is_control else header.count
            kinds |= bool(header.attributes & 7) | 2 * header.is_transactional | 4 * header.is_control
        position = end
    if start < 0:
        return end, end, offset, -1, 0, 0
    return start, end, next_offset, epoch, records, kinds


@given(logs(), st.integers(0, 40), st.integers(0, 200))
def test_a_survey_of_whole_batches_and_of_a_cut_off_one(data: bytes, offset: int, cut: int) -> None:
    wanted = dumb_survey(data, offset)
    for how, kernel in KERNELS.items():
        start, end, *rest, corrupt, _ = kernel.survey_batches(data, offset, True)
        assert (start, end, *rest) == wanted, how
        assert corrupt == -1
        shorter = data[: max(len(data) - cut, 0)]
        assert kernel.survey_batches(shorter, offset, True)[:6] == dumb_survey(shorter_whole(shorter), offset), how


def shorter_whole(data: bytes) -> bytes:
    return b"".join(bytes(batch) for _, batch in iter_batches(data))


@given(damaged(logs()), st.integers(0, 40))
def test_a_survey_of_damaged_data_is_the_same_compiled_and_not(data: bytes, offset: int) -> None:
    found = {how: kernel.survey_batches(data, offset, True) for how, kernel in KERNELS.items()}
    assert len(set(found.values())) == 1, found
    start, end, _, _, _, _, corrupt, _ = found["compiled"]
    assert 0 <= start <= end <= len(data)
    assert corrupt == -1 or corrupt >= end


@each_kernel
def test_a_batch_whose_crc_is_wrong_ends_what_is_given(how: str) -> None:
    survey = KERNELS[how].survey_batches
    batches = [raw_batch([RawRecord(0, 0, None, b"%d" % n)], base_offset=n) for n in range(3)]
    bad = bytearray(batches[1])
    bad[-2] ^= 1
    data = batches[0] + bytes(bad) + batches[2]
    one = len(batches[0])
    assert survey(data, 0, True)[:3] == (0, one, 1)
    assert survey(data, 0, True)[6] == one
    assert survey(data, 1, True) == (one, one, 1, -1, 0, 0, one, 0)
    # One that is not wanted is not looked into, and nobody looks where checks are off.
    assert survey(data, 2, True)[:3] == (2 * one, 3 * one, 3)
    assert survey(data, 0, False)[:3] == (0, 3 * one, 3)


@each_kernel
def test_a_batch_larger_than_what_came_says_how_large_it_is(how: str) -> None:
    batch = raw_batch([RawRecord(0, 0, None, b"x" * 100)], base_offset=5)
    survey = KERNELS[how].survey_batches
    for size in (12, 61, len(batch) - 1):
        assert survey(batch[:size], 5, True) == (0, 0, 5, -1, 0, 0, -1, len(batch))
    assert survey(batch[:11], 5, True)[7] == 61
    assert survey(b"", 5, True) == (0, 0, 5, -1, 0, 0, -1, 0)
    assert read_header(batch).size_bytes == len(batch)
