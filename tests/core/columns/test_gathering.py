"""Fetched pieces to record batches, held against what was put into them."""

from __future__ import annotations

import gc
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.batches import RawRecord, raw_batch, raw_record

from millstream import CorruptBatchError, TopicPartition
from millstream.core.client.consumer import FetchedRecords
from millstream.core.client.consumer.memory import FetchMemory
from millstream.core.columns.gathering import (
    empty_batch,
    gather,
    gathered_bytes,
    gathered_header,
    gathered_headers,
    gathered_places,
)
from millstream.core.columns.schema import RECORD_SCHEMA, VIEW_SCHEMA
from millstream.core.net import BufferPool
from millstream.core.records import RecordColumns

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

content = st.none() | st.binary(max_size=30)
header_lists = st.lists(st.tuples(st.text(max_size=5), content), max_size=2)
records = st.lists(st.tuples(content, content, header_lists, st.integers(0, 10_000)), min_size=1, max_size=6)


def piece_of(
    batches: list[list[tuple[Any, ...]]], *, topic: str = "t", partition: int = 0, append_time: bool = False
) -> tuple[FetchedRecords, list[dict[str, Any]]]:
    """Return a piece of these batches, and the rows it is to become."""
    data, rows, offset = b"", [], 0
    for number, batch in enumerate(batches):
        raw = [
            RawRecord(index, stamp, key, value, tuple((name.encode(), each) for name, each in headers))
            for index, (key, value, headers, stamp) in enumerate(batch)
        ]
        encoded = bytearray(raw_batch(raw, base_timestamp=5, max_timestamp=99_999, attributes=8 if append_time else 0))
        encoded[0:8] = offset.to_bytes(8, "big")
        encoded[12:16] = number.to_bytes(4, "big")
        data += bytes(encoded)
        for index, (key, value, headers, stamp) in enumerate(batch):
            rows.append(
                {
                    "topic": topic,
                    "partition": partition,
                    "offset": offset + index,
                    "timestamp": EPOCH + timedelta(milliseconds=99_999 if append_time else 5 + stamp),
                    "timestamp_type": int(append_time),
                    "key": key,
                    "value": value,
                    "headers": [{"key": name, "value": each} for name, each in headers],
                    "leader_epoch": number,
                }
            )
        offset += len(batch)
    tp = TopicPartition(topic, partition)
    piece = FetchedRecords(tp, memoryview(data), offset=0, next_offset=offset, record_count=offset)
    return piece, rows


@settings(deadline=None)
@given(first=st.lists(records, min_size=1, max_size=3), second=st.lists(records, min_size=1, max_size=3))
def test_rows_are_what_was_sent(first: list[Any], second: list[Any]) -> None:
    one, rows = piece_of(first)
    two, more = piece_of(second, topic="u", partition=2, append_time=True)
    for views in (False, True):
        gathered = gather([one, two, one], views=views, columns=RecordColumns(4))
        gathered.batch.validate(full=True)
        assert gathered.batch.schema == (VIEW_SCHEMA if views else RECORD_SCHEMA)
        assert gathered.batch.to_pylist() == rows + more + rows
        assert (gathered.left, gathered.error) == ({}, None)


@settings(deadline=None)
@given(batches=st.lists(records, min_size=1, max_size=4), append_time=st.booleans(), skipped=st.integers(0, 1))
def test_columns_by_themselves_are_those_of_a_batch(batches: list[Any], append_time: bool, skipped: int) -> None:
    piece, rows = piece_of(batches, append_time=append_time)
    found: list[tuple[list[dict[str, Any]], pa.RecordBatch]] = []
    done = 0
    for located in piece.locate(RecordColumns(4)):
        expected = rows[done + skipped : done + located.end - located.start]
        done += located.end - located.start
        located = located._replace(start=located.start + skipped)
        if not expected:
            continue
        places = gathered_places(located, piece.topic_partition)
        columns = dict(zip(places.schema.names, places.columns, strict=True))
        for name in ("key", "value"):
            columns[name] = gathered_bytes(located, name, sum(len(row[name] or b"") for row in expected))
        named = [
            [each["value"] for each in row["headers"] if each["key"] == "" and each["value"] is not None]
            for row in expected
        ]
        alone = gathered_header(located, b"")
        lasts = [values[-1] if values else None for values in named]
        assert (lasts if any(named) else None) == (None if alone is None else alone.to_pylist())
        columns["headers"] = gathered_headers(located, sum(len(row["headers"]) for row in expected))
        arrays = [columns[name] for name in RECORD_SCHEMA.names]
        found.append((expected, pa.RecordBatch.from_arrays(arrays, schema=RECORD_SCHEMA)))
    # The located columns have been filled again since, and nothing here looks into them.
    for expected, batch in found:
        batch.validate(full=True)
        assert batch.to_pylist() == expected


def test_buffers_of_a_pool_hold_the_same_and_come_again_when_the_arrays_are_gone() -> None:
    pool = BufferPool(16 << 20)
    draw = random.Random(1)
    pieces = []
    for key_bytes in (0, 3, 100):
        content = [
            (None if index % 7 == 0 else draw.randbytes(key_bytes), draw.randbytes(index % 50), (), index)
            for index in range(5_000)
        ]
        pieces.append(piece_of([content]))
    kept = []
    for piece, rows in pieces * 2:
        batch = gather([piece], pool=pool).batch
        batch.validate(full=True)
        fixed = [batch.column(name) for name in ("offset", "timestamp", "partition", "key", "value")]
        assert all(column.buffers()[1].address % 64 == 0 for column in fixed)
        kept.append((batch, rows))
    held_bytes = pool.held_bytes
    assert held_bytes > 0
    # What came later did not touch what came before.
    for batch, rows in kept:
        assert batch.to_pylist() == rows
    value = kept[0][0].column("value")
    kept.clear()
    del batch
    for piece, rows in pieces * 3:
        assert gather([piece], pool=pool).batch.to_pylist() == rows
    assert value.to_pylist() == [row["value"] for row in pieces[0][1]]
    assert pool.held_bytes == held_bytes


@settings(deadline=None)
@given(batches=st.lists(records, min_size=1, max_size=4), bytes_max=st.integers(1, 120))
def test_a_column_that_grows_too_large_ends_its_batch(batches: list[Any], bytes_max: int) -> None:
    piece, rows = piece_of(batches)
    largest = max(
        max(
            len(row["key"] or b""),
            len(row["value"] or b""),
            sum(len(each["key"].encode()) for each in row["headers"]),
            sum(len(each["value"] or b"") for each in row["headers"]),
            2 * len(row["headers"]),
        )
        for row in rows
    )
    found: list[dict[str, Any]] = []
    while len(found) < len(rows):
        gathered = gather([piece], bytes_max=max(bytes_max, largest))
        gathered.batch.validate(full=True)
        assert gathered.batch.num_rows > 0
        found += gathered.batch.to_pylist()
        if gathered.left:
            assert gathered.left == {TopicPartition("t", 0): found[-1]["offset"] + 1}
            piece.offset = gathered.left[TopicPartition("t", 0)]
    assert found == rows


def test_pieces_behind_one_that_did_not_fit_are_left_whole() -> None:
    one, rows = piece_of([[(None, b"x" * 50, (), 0)] * 3])
    two, _ = piece_of([[(None, b"y", (), 0)]], topic="u")
    gathered = gather([one, two], bytes_max=100)
    assert gathered.batch.to_pylist() == rows[:2]
    assert gathered.left == {TopicPartition("t", 0): 2, TopicPartition("u", 0): 0}


def test_records_outside_the_piece_are_left_out() -> None:
    piece, rows = piece_of([[(None, b"v%d" % index, (), 0) for index in range(10)]])
    piece.offset, piece.next_offset = 3, 7
    assert gather([piece]).batch.to_pylist() == rows[3:7]


def test_damage_ends_the_batch_and_is_told() -> None:
    piece, rows = piece_of([[(None, b"good", (), 0)], [(None, b"bad", (), 0)], [(None, b"after", (), 0)]])
    data = bytearray(piece.data)
    broken = data.index(raw_record(RawRecord(0, 0, None, b"bad")))
    data[broken] = 0x7E
    piece = FetchedRecords(TopicPartition("t", 0), memoryview(data), offset=0, next_offset=3, record_count=3)
    other, _ = piece_of([[(None, b"v", (), 0)]], topic="u")
    gathered = gather([piece, other])
    assert gathered.batch.to_pylist() == rows[:1]
    assert isinstance(gathered.error, CorruptBatchError)
    assert gathered.left == {TopicPartition("t", 0): 1, TopicPartition("u", 0): 0}


def test_header_names_that_are_no_text_are_replaced() -> None:
    raw = raw_batch([RawRecord(0, 0, None, None, ((b"\xff!", b"1"),))])
    piece = FetchedRecords(TopicPartition("t", 0), memoryview(raw), offset=0, next_offset=1, record_count=1)
    assert gather([piece]).batch.column("headers").to_pylist() == [[{"key": "\ufffd!", "value": b"1"}]]


@pytest.mark.parametrize("views", [False, True])
def test_no_records_make_an_empty_batch(views: bool) -> None:
    batch = empty_batch(views=views)
    assert batch.num_rows == 0
    assert batch.schema == gather([], views=views).batch.schema


def test_views_hold_their_memory_until_the_last_array_is_gone() -> None:
    memory = FetchMemory(1 << 20)
    made, _ = piece_of([[(b"k" * 20, b"v" * 50, (), 0)] * 10])
    lease, data = memory.lease(len(made.data)), memoryview(bytes(made.data))
    lease.share(data)
    pieces = [FetchedRecords(TopicPartition("t", 0), data, offset=0, next_offset=10, record_count=10, lease=lease)]
    del data
    batch = gather(pieces, views=True).batch
    pieces.clear()
    some = batch.column("value").slice(3, 2)
    del batch
    gc.collect()
    assert memory.held_bytes > 0
    assert some.to_pylist() == [b"v" * 50] * 2
    del some
    gc.collect()
    assert memory.held_bytes == 0


def test_copies_give_the_memory_back_at_once() -> None:
    memory = FetchMemory(1 << 20)
    made, rows = piece_of([[(b"k", b"v" * 50, (), 0)] * 10])
    lease, data = memory.lease(len(made.data)), memoryview(bytes(made.data))
    lease.share(data)
    piece = FetchedRecords(TopicPartition("t", 0), data, offset=0, next_offset=10, record_count=10, lease=lease)
    batch = gather([piece]).batch
    assert memory.held_bytes == 0
    assert pa.Table.from_batches([batch]).to_pylist() == rows
