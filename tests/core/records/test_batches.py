"""Header, builder and iteration: against a dumb writer, there and back, and at the limits of their types."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.batches import INT16, INT32, INT64, damaged, logs, numbered, raw_batch, record_lists, varint

from millstream.core.records import (
    HEADER_SIZE,
    BatchBuilder,
    BatchHeader,
    Compression,
    CorruptRecordError,
    DecompressedTooLargeError,
    Record,
    RecordColumns,
    StopReason,
    TimestampType,
    append_varint,
    compress,
    decompress,
    iter_batches,
    iter_records,
    keyed_batch,
    read_header,
    read_varint,
)

texts = st.text(max_size=8)
optional_bytes = st.none() | st.binary(max_size=100)
timestamps = st.integers(0, 2**62)
records_in = st.lists(
    st.tuples(timestamps, optional_bytes, optional_bytes, st.lists(st.tuples(texts, optional_bytes), max_size=3)),
    min_size=1,
    max_size=20,
)


@given(records=records_in, codec=st.sampled_from(Compression), base_offset=st.integers(0, 2**62))
def test_what_is_built_is_read_again(
    records: list[tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]],
    codec: Compression,
    base_offset: int,
) -> None:
    builder = BatchBuilder(compression=codec, base_offset=base_offset, producer_id=9, producer_epoch=2, base_sequence=5)
    for record in records:
        builder.append(*record)
    batch = builder.build()

    header = read_header(batch)
    assert header.size_bytes == len(batch)
    assert (header.compression, header.count, header.producer_id) == (codec, len(records), 9)
    assert (header.base_timestamp, header.max_timestamp) == (records[0][0], max(record[0] for record in records))
    assert list(iter_records(batch)) == [
        Record(base_offset + index, timestamp, key, value, tuple(headers))
        for index, (timestamp, key, value, headers) in enumerate(records)
    ]


def test_the_builder_writes_what_the_dumb_writer_writes() -> None:
    builder = BatchBuilder(base_offset=3, leader_epoch=4, transactional=True, producer_id=1, base_sequence=0)
    for index, record in enumerate(numbered(200)):
        assert builder.append(1000 + record.timestamp_delta, record.key, record.value) == 3 + index
    fields = {"base_offset": 3, "leader_epoch": 4, "attributes": 0x10, "producer_id": 1, "base_sequence": 0}

    batch = builder.build()

    assert batch == raw_batch(numbered(200), base_timestamp=1000, max_timestamp=1199, **fields)
    assert len(builder) == 200
    assert builder.size_bytes == len(batch)


@given(
    base_offset=INT64,
    epoch=INT32,
    attributes=INT16,
    numbers=st.tuples(INT64, INT64, INT64, INT16, INT32, INT32),
    delta=INT32,
)
def test_header_fields_at_their_limits(
    base_offset: int, epoch: int, attributes: int, numbers: tuple[int, int, int, int, int, int], delta: int
) -> None:
    base_timestamp, max_timestamp, producer_id, producer_epoch, base_sequence, count = numbers
    batch = raw_batch(
        b"",
        base_offset=base_offset,
        leader_epoch=epoch,
        attributes=attributes,
        last_offset_delta=delta,
        base_timestamp=base_timestamp,
        max_timestamp=max_timestamp,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
        count=count,
    )
    header = read_header(b"xy" + batch, 2)

    assert header == BatchHeader(base_offset, 49, epoch, 2, header.crc, attributes, delta, *numbers)
    assert header.pack() == batch
    assert header.last_offset == base_offset + delta


def test_what_the_attributes_say() -> None:
    header = read_header(raw_batch(b"", attributes=0x7B))
    assert (header.compression, header.timestamp_type) == (Compression.LZ4, TimestampType.LOG_APPEND_TIME)
    assert (header.is_transactional, header.is_control, header.has_delete_horizon) == (True, True, True)
    header = read_header(raw_batch(b"", attributes=0))
    assert (header.compression, header.timestamp_type) == (Compression.NONE, TimestampType.CREATE_TIME)
    assert (header.is_transactional, header.is_control, header.has_delete_horizon) == (False, False, False)
    with pytest.raises(ValueError, match="5 is not a valid Compression"):
        _ = read_header(raw_batch(b"", attributes=5)).compression


def test_the_last_sequence_wraps_around() -> None:
    assert read_header(raw_batch(b"", base_sequence=2**31 - 2, last_offset_delta=3)).last_sequence == 1
    assert read_header(raw_batch(b"", base_sequence=-1, last_offset_delta=3)).last_sequence == -1


def test_no_header() -> None:
    with pytest.raises(CorruptRecordError, match="no batch header"):
        read_header(bytes(60))
    with pytest.raises(CorruptRecordError, match="no batch header"):
        read_header(bytes(100), 40)
    with pytest.raises(CorruptRecordError, match="magic 1"):
        read_header(raw_batch(b"", magic=1))


def test_iteration_over_batches_ends_at_a_cut_one() -> None:
    data = raw_batch(numbered(3)) + raw_batch(numbered(2), base_offset=3)

    assert [header.count for header, _ in iter_batches(data)] == [3, 2]
    assert b"".join(batch for _, batch in iter_batches(data)) == data
    assert [header.count for header, _ in iter_batches(data[:-1])] == [3]
    assert list(iter_batches(data[:60])) == []
    with pytest.raises(CorruptRecordError, match="claims 3 bytes"):
        list(iter_batches(raw_batch(numbered(1), batch_length=3)))


def test_log_append_time_is_every_records_time() -> None:
    batch = raw_batch(numbered(3), attributes=0x08, max_timestamp=77)
    assert {record.timestamp for record in iter_records(batch)} == {77}


def test_a_bomb_is_not_iterated() -> None:
    batch = raw_batch(compress(Compression.ZSTD, bytes(10**7)), attributes=4)
    with pytest.raises(DecompressedTooLargeError):
        next(iter_records(batch, decompressed_bytes_max=10**6))
    with pytest.raises(CorruptRecordError, match="no codec has the number 7"):
        next(iter_records(raw_batch(b"x", attributes=7)))


@given(data=damaged(logs(codecs=False)))
def test_damage_is_a_corrupt_record_and_nothing_else(data: bytes) -> None:
    try:
        for header, batch in iter_batches(data):
            assert len(list(iter_records(batch))) == max(header.count, 0)
    except CorruptRecordError:
        pass


@given(number=INT64)
def test_varints(number: int) -> None:
    buffer = bytearray(b"x")
    append_varint(buffer, number)
    assert buffer[1:] == varint(number)
    assert read_varint(buffer, 1) == (number, len(buffer))


def test_varints_without_an_end() -> None:
    for data in (b"", b"\x80", b"\xff" * 10, b"\x80" * 20):
        with pytest.raises(CorruptRecordError):
            read_varint(data, 0)


@given(data=logs(), codecs=st.lists(st.sampled_from(Compression), min_size=1, max_size=4))
def test_columns_say_what_iteration_says(data: bytes, codecs: list[Compression]) -> None:
    recoded = b""
    for index, (header, batch) in enumerate(iter_batches(data)):
        codec = codecs[index % len(codecs)]
        recoded += raw_batch(
            compress(codec, batch[HEADER_SIZE:]),
            base_offset=header.base_offset,
            attributes=header.attributes | codec,
            last_offset_delta=header.last_offset_delta,
            base_timestamp=header.base_timestamp % 2**62,
            max_timestamp=header.max_timestamp,
            count=header.count,
        )
    expected = [
        record for header, batch in iter_batches(recoded) if not header.is_control for record in iter_records(batch)
    ]
    columns = RecordColumns(5)
    got: list[tuple[int, int, bytes | None, bytes | None, int]] = []

    def take(buffer: bytes | memoryview) -> None:
        view = memoryview(buffer)
        for row in range(columns.count):
            key, value = (
                None if sizes[row] < 0 else bytes(view[positions[row] : positions[row] + sizes[row]])
                for positions, sizes in (
                    (columns.key_positions, columns.key_sizes),
                    (columns.value_positions, columns.value_sizes),
                )
            )
            got.append((columns.offsets[row], columns.timestamps[row], key, value, columns.header_counts[row]))
        columns.clear()

    position = 0
    while True:
        position, reason = columns.locate(recoded, position)
        take(recoded)
        if reason is StopReason.COMPRESSED:
            header, batch = next(iter_batches(recoded[position:]))
            payload = decompress(header.compression, batch[HEADER_SIZE:], size_bytes_max=10**6)
            assert columns.locate_payload(payload, header, position) is StopReason.END
            take(payload)
            position += header.size_bytes
        elif reason is StopReason.END:
            break
        else:
            assert reason is StopReason.ROWS_FULL
    assert [row[0] for row in got] == [record.offset for record in expected]
    assert [row[2:4] for row in got] == [(record.key, record.value) for record in expected]
    assert [row[4] for row in got] == [len(record.headers) for record in expected]


@given(records=record_lists(gaps=False))
def test_columns_that_are_too_small_say_so(records: list[Any]) -> None:
    columns = RecordColumns(0)
    batch = raw_batch(records)
    assert columns.locate(batch) == (0, StopReason.ROWS_FULL)
    assert columns.locate_payload(batch[HEADER_SIZE:], read_header(batch), 0) is StopReason.ROWS_FULL


@pytest.mark.parametrize("count", [1, 63, 64, 65, 300])
def test_a_keyed_batch_is_what_the_builder_makes_of_its_records(count: int) -> None:
    records = [(b"key %d" % i * (i % 7), None if i % 3 else b"v" * i * 50) for i in range(count)]
    builder = BatchBuilder()
    for key, value in records:
        builder.append(1_700_000_000_000, key, value)
    data, header = keyed_batch(records, 1_700_000_000_000)
    assert bytes(data) == builder.build()
    assert header == read_header(data)
