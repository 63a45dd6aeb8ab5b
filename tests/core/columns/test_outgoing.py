"""What of a table is sent: types, defaults, and what is refused, by its row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from millstream import ErrorCode, KafkaError
from millstream.core.columns.encoding import EncodedBatch, Encoder
from millstream.core.columns.outgoing import Choice, outgoing
from millstream.core.records import BatchBuilder, iter_records

NOW_MS = 1_790_000_000_000
Sent = tuple[int, bytes | None, bytes | None, int, Any]


def encoder(choices: Iterator[int] | None = None, **settings: Any) -> Encoder:
    turns = choices or iter([0] * 1000)
    settings = {"batch_size": 16_384, "batch_size_max": 1 << 20} | settings
    return Encoder("t", 3, lambda: next(turns), **settings)


def records_of(batch: EncodedBatch) -> list[Sent]:
    """Read an encoded batch as a broker would, behind a header made for it."""
    builder = BatchBuilder()
    builder.append(batch.base_timestamp, None, None)
    header = bytearray(builder.build()[:61])
    header[8:12] = (len(batch.buffer) - 12).to_bytes(4, "big")
    header[23:27] = (batch.record_count - 1).to_bytes(4, "big")
    header[35:43] = batch.max_timestamp.to_bytes(8, "big")
    header[57:61] = batch.record_count.to_bytes(4, "big")
    whole = bytes(header) + bytes(batch.buffer[61:])
    partition = batch.topic_partition.partition
    return [(partition, each.key, each.value, each.timestamp, each.headers) for each in iter_records(whole)]


def sent(data: Any, /, using: Encoder | None = None, **choice: Any) -> list[Sent]:
    using = using or encoder()
    return [
        record
        for part in outgoing(data, Choice(**choice), NOW_MS)
        for batch in using.encode(part)
        for record in records_of(batch)
    ]


TYPES = [
    pa.binary(),
    pa.string(),
    pa.large_binary(),
    pa.large_string(),
    pa.binary_view(),
    pa.string_view(),
    pa.binary(3),
    pa.dictionary(pa.int8(), pa.string()),
]


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_columns_of_bytes_and_text_are_sent(kind: pa.DataType) -> None:
    values = pa.array(["abc", None, "xyz", "uvw"], pa.string())
    if kind == pa.binary(3):
        values = values.cast(pa.binary())
    if pa.types.is_binary_view(kind) or pa.types.is_string_view(kind):
        is_text = pa.types.is_string_view(kind)
        array = pa.array([each if is_text or each is None else each.encode() for each in values.to_pylist()], kind)
    else:
        array = values.dictionary_encode() if pa.types.is_dictionary(kind) else values.cast(kind)
    for cut, expected in ((array, [b"abc", None, b"xyz", b"uvw"]), (array.slice(1, 2), [None, b"xyz"])):
        found = sent({"value": cut})
        assert [value for _, _, value, _, _ in found] == expected
        assert {(partition, key, stamp) for partition, key, _, stamp, _ in found} == {(0, None, NOW_MS)}


def test_columns_are_taken_by_name_or_as_arrays() -> None:
    table = pa.table(
        {"a": ["k1", "k2"], "b": [b"v1", b"v2"], "at": pa.array([5_000_999, 6_000_000], pa.timestamp("us"))}
    )
    found = sent(table, key="a", value="b", timestamp="at", partition=pa.array([2, 0]))
    assert found == [(0, b"k2", b"v2", 6000, ()), (2, b"k1", b"v1", 5000, ())]
    assert sent(table, value=["x", "y"], timestamp=[1, 2], partition=1) == [
        (1, None, b"x", 1, ()),
        (1, None, b"y", 2, ()),
    ]


@pytest.mark.parametrize("offset", [0, 1])
def test_headers_come_as_lists_or_maps(offset: int) -> None:
    rows = [[("a", b"1"), ("b", None)], None, [], [("c", b"")]]
    as_map = pa.array(rows, pa.map_(pa.string(), pa.binary()))
    pairs = [None if row is None else [{"key": name, "value": value} for name, value in row] for row in rows]
    kind = pa.struct({"key": pa.string(), "value": pa.binary()})
    expected = [tuple((name, value) for name, value in row or []) for row in rows][offset:]
    for array in (as_map, pa.array(pairs, pa.list_(kind)), pa.array(pairs, pa.large_list(kind))):
        cut = array.slice(offset)
        found = sent({"value": ["v"] * len(cut), "h": cut}, headers="h")
        assert [headers for *_, headers in found] == expected


class Stream:
    """What polars, pandas and duckdb have in common."""

    def __init__(self, reader: pa.RecordBatchReader) -> None:
        self._reader = reader

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._reader.__arrow_c_stream__(requested_schema)


def test_anything_with_arrows_interface_is_a_table() -> None:
    table = pa.table({"value": ["a", "b", "c"]})
    batch = table.to_batches()[0]
    chunked = pa.concat_tables([table, table.slice(0, 0), table.slice(1)])
    for data, expected in [
        (table, "abc"),
        (batch, "abc"),
        (chunked, "abcbc"),
        (Stream(table.to_reader()), "abc"),
        (Stream(chunked.to_reader()), "abcbc"),
        ({"value": list("abc")}, "abc"),
        (table.slice(0, 0), ""),
    ]:
        assert [(value or b"").decode() for _, _, value, _, _ in sent(data)] == list(expected)


def test_rows_without_a_key_fill_one_partition_after_another() -> None:
    turns = iter([2, 1, 0, 2, 1, 0])
    values = [b"x" * 10_000] * 100
    found = sent({"value": values}, using=encoder(turns, batch_size=300_000))
    assert [partition for partition, *_ in found] == [2] * 29 + [1] * 29 + [0] * 29 + [2] * 13
    mixed = sent({"key": ["k", None, "k", None], "value": ["1", "2", "3", "4"]}, using=encoder(iter([1, 2, 0])))
    of_key = next(partition for partition, key, *_ in mixed if key)
    assert [(partition, value) for partition, key, value, *_ in mixed if key] == [(of_key, b"1"), (of_key, b"3")]
    assert [(partition, value) for partition, key, value, *_ in mixed if not key] == [(1, b"2"), (1, b"4")]


def test_a_partitioner_of_the_users_own_decides() -> None:
    def by_value(topic: str, key: Any, value: Any, count: int) -> int | None:
        assert (topic, count) == ("t", 3)
        return None if value == "none" else int(value)

    found = sent({"key": ["k"] * 3, "value": ["2", "none", "0"]}, using=encoder(iter([1]), partitioner=by_value))
    assert sorted((partition, value) for partition, _, value, *_ in found) == [(0, b"0"), (1, b"none"), (2, b"2")]


def test_keys_may_be_left_out_of_it() -> None:
    found = sent({"key": list("abcdef"), "value": list("123456")}, using=encoder(iter([2]), ignore_keys=True))
    assert {partition for partition, *_ in found} == {2}


@pytest.mark.parametrize(
    ("data", "choice", "kind", "message"),
    [
        ({"x": [b"1"]}, {}, KeyError, "key= or value= .* 'x'"),
        ({"x": [b"1"]}, {"value": "y"}, KeyError, "value='y': the table has no such column, but 'x'"),
        ({"value": [1]}, {}, TypeError, "value is a column of int64"),
        ({"value": [b"1"], "t": ["now"]}, {"timestamp": "t"}, TypeError, "timestamp is a column of string"),
        ({"value": [b"1"] * 3, "t": [1, 2, None]}, {"timestamp": "t"}, ValueError, "row 2: its timestamp is null"),
        ({"value": [b"1"] * 3, "t": [1, -2, 3]}, {"timestamp": "t"}, ValueError, "row 1: its timestamp is before"),
        ({"value": [b"1"] * 2, "p": [0, None]}, {"partition": "p"}, ValueError, "row 1: its partition is null"),
        ({"value": [b"1"] * 2, "p": [0, -1]}, {"partition": "p"}, ValueError, "row 1: its partition is no"),
        ({"value": [b"1"], "p": ["0"]}, {"partition": "p"}, TypeError, "partition is a column of string"),
        ({"value": [b"1"]}, {"value": [b"1", b"2"]}, ValueError, "value has 2 rows, the table 1"),
        ({"value": [b"1"]}, {"value": 3}, TypeError, "value is a column's name or an array, not 3"),
        ({"value": [b"1"], "h": ["x"]}, {"headers": "h"}, TypeError, "headers is a column of string"),
        (["value"], {}, TypeError, "a list is no table"),
    ],
)
def test_what_cannot_be_sent_is_refused(data: Any, choice: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        sent(data, **choice)


def test_a_header_without_a_name_is_refused() -> None:
    kind = pa.list_(pa.struct({"key": pa.string(), "value": pa.binary()}))
    headers = pa.array([[{"key": "a", "value": b"1"}], [], [{"key": None, "value": b"1"}]], kind)
    with pytest.raises(ValueError, match="row 2: the key of a header is null"):
        sent({"value": ["1", "2", "3"]}, headers=headers)


def test_a_row_that_is_too_large_is_named() -> None:
    rows = ["x"] * 70_000 + ["y" * 5000]
    with pytest.raises(KafkaError, match=r"row 70000: its record takes 50\d\d bytes") as raised:
        sent(pa.table({"value": rows}), using=encoder(batch_size_max=4000))
    assert raised.value.code is ErrorCode.MESSAGE_TOO_LARGE


@pytest.mark.parametrize("partition", [3, [0, 3]])
def test_a_partition_that_is_not_there_is_named(partition: Any) -> None:
    with pytest.raises(KafkaError, match=r"row [01]: topic 't' has no partition 3") as raised:
        sent({"value": ["1", "2"]}, partition=partition)
    assert raised.value.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
