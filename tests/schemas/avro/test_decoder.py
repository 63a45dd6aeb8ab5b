"""AvroDecoder on bad datums, on batches of several schemas, and within its bounds."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pytest
from tests.support.avro_schemas import record, written

from millstream.schemas.avro import (
    AvroDecoder,
    AvroEncoder,
    AvroValidator,
    DecodedTooLargeError,
    EncodeError,
    TooManyUnknownIdsError,
    UnsupportedSchemaError,
    validate_datums,
)
from millstream.schemas.avro import decoder as decoder_module
from millstream.schemas.avro.decoder import FAILED_LOOKUPS_MAX, UNKNOWN_IDS_MAX, UNKNOWN_KEPT_S
from millstream.schemas.client import RegistryError
from millstream.schemas.parsing import ParsedSchema, parse

LONGS = {"type": "array", "items": "long"}
TREE = record("Tree", ["int", ["null", "Tree"]])


def one(schema: Any, datum: bytes, **options: Any) -> Any:
    """Return what a bare datum decodes to, as the specification's text would have it; an error's reason otherwise."""
    decoded = AvroDecoder(reader_schema=json.dumps(schema), framing="none", **options).decode(pa.array([datum]))
    decoded.batch.validate(full=True)
    if decoded.errors:
        return decoded.errors[0].reason
    return decoded.batch.to_pylist()[0]


def framed(schema_id: int, datum: bytes) -> bytes:
    return b"\0" + schema_id.to_bytes(4, "big") + datum


@pytest.mark.parametrize(("type_", "unit"), [("int", "millis"), ("long", "micros")])
def test_a_time_lies_within_a_day(type_: str, unit: str) -> None:
    # Arrow has no other times of day: arrays of them are invalid.
    day = 86_400_000 * (1 if unit == "millis" else 1000)
    schema = {"type": type_, "logicalType": f"time-{unit}"}
    values = [-1, 0, day - 1, day, 2**31 - 1, -(2**31)]
    datums = pa.array([written(type_, value) for value in values])
    decoded = AvroDecoder(reader_schema=json.dumps(schema), framing="none").decode(datums)
    decoded.batch.validate(full=True)
    good = [1, 2] if unit == "millis" else [1, 2, 4]
    assert decoded.rows is not None
    assert decoded.rows.to_pylist() == good
    assert {error.reason.split(" (")[0] for error in decoded.errors} == {"value: the time is out of range"}
    # In the reader's unit.
    reader = {"type": "long", "logicalType": "time-micros"}
    decoder = AvroDecoder(reader_schema=json.dumps(reader), writer_schema=json.dumps(schema), framing="none")
    assert [error.row for error in decoder.decode(datums).errors] == [row for row in range(6) if row not in good]


@pytest.mark.parametrize(
    ("schema", "datum", "reason"),
    [
        ("long", b"", "value ends within it"),
        ("long", b"\x80", "value ends within it"),
        ("long", b"\xff" * 9 + b"\x02", "more than 64 bits"),
        ("long", b"\x80" * 11, "more than 64 bits"),
        ("long", b"\x00\x00", "bytes are left behind the datum"),
        ("int", b"\x80\x80\x80\x80\x10", "more than 32 bits"),
        ("boolean", b"\x02", "neither 0 nor 1"),
        ("string", b"\x03", "size is negative or beyond"),
        ("string", b"\x06fo", "size is negative or beyond"),
        ("string", b"\x04\xc3\x28", "not UTF-8"),
        ("string", b"\x06\xed\xa0\x80", "not UTF-8"),  # half a surrogate pair
        ("string", b"\x24" + b"a" * 17 + b"\xff", "not UTF-8"),
        ("bytes", b"\x01", "size is negative or beyond"),
        ("double", b"\0" * 7, "value ends within it"),
        ("float", b"\0" * 3, "value ends within it"),
        (["null", "long"], b"\x04", "no such branch"),
        (["null", "long"], b"\x01", "no such branch"),
        (["int", "string", "null"], b"\x06", "no such branch"),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, b"\x02", "no such symbol"),
        (LONGS, b"\x0a\x02\x00", "more items than there are bytes for"),
        (LONGS, b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", "more items than there are bytes for"),
        (LONGS, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00", "more items than there are bytes for"),
        (LONGS, b"\x03\x06\x06\x36\x00", "not as long as it says"),
        (LONGS, b"\x03\x01\x06\x36\x00", "size is negative or beyond"),
        ({"type": "array", "items": "null"}, b"\x80\x80\x80\x80\x08\x00", "too many items without bytes"),
        ({"type": "array", "items": record("Empty", [])}, b"\x80\x80\x80\x80\x08\x00", "too many items without"),
        ({"type": "map", "values": "null"}, b"\x02\x02", "size is negative or beyond"),
        (
            {"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 0},
            b"\x02\x64",
            "more digits than its precision",
        ),
        (
            {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 0},
            b"\x22\x01" + b"\0" * 16,
            "more digits than its precision",
        ),
    ],
)
def test_bad_datums(schema: Any, datum: bytes, reason: str) -> None:
    assert reason in one(schema, datum)
    assert reason in validate_datums(json.dumps(schema), pa.array([datum])).errors[0].reason


def test_what_is_kept_as_avro_can_be_written_again() -> None:
    """Of a type that holds itself, which an encoder looks at before it copies it, down to the digits of decimals."""
    money = {"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 0}
    text = json.dumps(record("Tree", [money, ["null", "Tree"]]))
    datums = [b"\x02\x01\x02\x02\x63\x00", b"\x02\x01\x02\x02\x64\x00"]
    decoded = AvroDecoder(reader_schema=text, framing="none", on_recursion="binary").decode(pa.array(datums))
    assert [(error.row, "more digits" in error.reason) for error in decoded.errors] == [(1, True)]
    encode = AvroEncoder(text, on_recursion="binary").encode
    assert encode(decoded.batch).to_pylist() == datums[:1]
    with pytest.raises(EncodeError, match="more digits"):
        encode(decoded.batch.set_column(1, "f1", pa.array([datums[1][3:]])))


def test_what_is_kept_as_avro_is_looked_at_however_deep_it_lies() -> None:
    """Records that are skipped on the way are only passed over, also those of the same type."""
    node = record("Node", ["string", ["null", "Node"]])
    writer = json.dumps(record("Outer", [["null", node], node, ["null", "Node"]]))
    reader = json.loads(writer)
    del reader["fields"][0]
    reader["fields"][0]["type"] = node
    good, bad = b"\2a\2\2b\2\2c\0", b"\2a\2\2b\2\2\xff\0"
    datums = [b"\2" + skipped + read + b"\0" for skipped in (good, bad) for read in (good, bad)]
    decoder = AvroDecoder(reader_schema=json.dumps(reader), writer_schema=writer, framing="none", on_recursion="binary")
    decoded = decoder.decode(pa.array(datums))
    assert [(error.row, error.reason.split(" (")[0]) for error in decoded.errors] == [
        (row, "Node.f0: it is not UTF-8") for row in (1, 3)
    ]


def test_a_bad_datum_leaves_nothing_behind() -> None:
    inner = record("Inner", ["string", {"type": "array", "items": "string"}, ["null", "long"]])
    types = [
        "boolean",
        {"type": "array", "items": inner},
        ["int", "string"],
        {"type": "map", "values": "double"},
        "int",
    ]
    schema = record("Outer", types)
    value = {
        "f0": True,
        "f1": [{"f0": "ä", "f1": ["x", "y"], "f2": 5}, {"f0": "b", "f1": [], "f2": None}],
        "f2": "text",
        "f3": {"k": 1.5},
        "f4": 3,
    }
    good = written(schema, value)
    for union in ("struct", "dense_union"):
        decoder = AvroDecoder(reader_schema=json.dumps(schema), framing="none", on_union=union)
        expected = decoder.decode(pa.array([good] * 2)).batch
        for cut in range(len(good)):
            # What follows a value must not be taken for its own.
            decoded = decoder.decode(pa.array([good, good[:cut], good]))
            decoded.batch.validate(full=True)
            assert decoded.batch.equals(expected)
            assert decoded.rows is not None
            assert decoded.rows.to_pylist() == [0, 2]
            assert [error.row for error in decoded.errors] == [1]


def test_text_beside_the_end_of_the_buffer() -> None:
    for size in range(40):
        for content in ("a" * size, "a" * size + "é"):
            assert one("string", written("string", content)) == {"value": content}


def test_writers_of_several_schemas_keep_the_order_of_rows() -> None:
    first = record("R", ["int", "string"])
    second = {
        "type": "record",
        "name": "R",
        "fields": [{"name": "f1", "type": "string"}, {"name": "f0", "type": "long"}],
    }
    reader = record("R", ["long", ["null", "string"]])
    schemas = {1: json.dumps(first), 2: json.dumps(second)}
    values = []
    for number in range(20):
        row = {"f0": number, "f1": f"text {number}"}
        values.append(framed(1, written(first, row)) if number % 3 else framed(2, written(second, row)))

    decoded = AvroDecoder(schemas, json.dumps(reader)).decode(pa.array(values))

    assert decoded.batch.to_pylist() == [{"f0": number, "f1": f"text {number}"} for number in range(20)]
    assert decoded.rows is None
    assert not decoded.errors


def test_what_a_registry_does_not_know_and_what_is_not_framed() -> None:
    class Registry:
        asked = 0

        def schema(self, schema_id: int) -> ParsedSchema:
            self.asked += 1
            if schema_id == 1:
                return parse("AVRO", '"int"')
            if schema_id == 2:
                return parse("JSON", "{}")
            raise RegistryError(40403, 404, "Schema not found")

    registry = Registry()
    values = [framed(9, b"\2"), b"", b"\1\0\0\0\1\2", None, framed(9, b"\2"), framed(2, b"{}"), framed(1, b"\2")]

    decoded = AvroDecoder(registry).decode(pa.array(values, pa.binary()))

    assert decoded.batch.to_pylist() == [{"value": 1}]
    assert decoded.rows is not None
    assert decoded.rows.to_pylist() == [6]
    assert [(error.row, error.schema_id) for error in decoded.errors] == [(0, 9), (1, None), (2, None), (4, 9), (5, 2)]
    assert "Schema not found" in decoded.errors[0].reason
    assert "zero byte and a schema id" in decoded.errors[1].reason
    assert "an Avro schema is needed" in decoded.errors[4].reason
    assert registry.asked == 3


def test_ids_that_a_mapping_does_not_have() -> None:
    decoded = AvroDecoder({1: '"int"'}).decode(pa.array([framed(3, b"\2"), b"\0\xff\xff\xff\xff\2", framed(1, b"\2")]))
    assert [error.reason for error in decoded.errors] == ["schema 3 is not known", "no schema has the id -1"]
    assert decoded.batch.to_pylist() == [{"value": 1}]


def test_an_outage_of_the_registry_is_nobodys_bad_datum() -> None:
    def unavailable(schema_id: int) -> str:
        raise RegistryError(50001, 503, "no leader")

    with pytest.raises(RegistryError, match="no leader"):
        AvroDecoder(unavailable).decode(pa.array([framed(1, b"\2")]))


@pytest.mark.parametrize(
    "type_", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.string(), pa.large_string(), pa.string_view()]
)
def test_every_kind_of_binary(type_: pa.DataType) -> None:
    values = pa.array([b"\2", None, b"\4", b"\6"], pa.binary()).cast(type_)
    decoder = AvroDecoder(reader_schema='"int"', framing="none")
    assert decoder.decode(values).batch.column(0).to_pylist() == [1, 2, 3]
    assert decoder.decode(values.slice(1)).batch.column(0).to_pylist() == [2, 3]
    assert decoder.decode(values.slice(2)).batch.column(0).to_pylist() == [2, 3]
    assert decoder.decode(pa.chunked_array([values, values])).batch.num_rows == 6
    assert decoder.decode(values.slice(4)).batch.num_rows == 0
    with pytest.raises(TypeError, match="are binary, not int32"):
        decoder.decode(pa.array([1], pa.int32()))


@pytest.mark.slow
def test_chunks_that_are_too_much_for_one_array(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 2**30
    if os.environ.get("MILLSTREAM_SOAK") != "1":
        size = 1_000
        monkeypatch.setattr(decoder_module, "_JOINED_BYTES_MAX", 2 * size)
    offsets = pa.array([0, 1, 2, size], pa.int32()).buffers()[1]
    chunk = pa.Array.from_buffers(pa.binary(), 3, [None, offsets, pa.py_buffer(b"\2" * size)])
    combined = pa.chunked_array([chunk] * 3)
    decoded = AvroDecoder(reader_schema='"int"', framing="none").decode(combined)
    assert decoded.batch.column(0).to_pylist() == [1] * 6
    assert [error.row for error in decoded.errors] == [2, 5, 8]


def test_bytes_alone_have_no_length_in_confluents_framing() -> None:
    decoded = AvroDecoder({1: '"bytes"'}).decode(pa.array([framed(1, b"\x06raw"), framed(1, b"")]))
    assert decoded.batch.column(0).to_pylist() == [b"\x06raw", b""]


@pytest.mark.parametrize(
    ("writer", "reader", "number", "seen"),
    [
        ("timestamp-millis", "timestamp-micros", 1_500, 1_500_000),
        ("timestamp-micros", "timestamp-millis", -1, -1),
        ("timestamp-nanos", "timestamp-micros", 1_999, 1),
        ("timestamp-millis", "timestamp-nanos", 2**60, "out of range"),
        ("local-timestamp-millis", "local-timestamp-nanos", -2, -2_000_000),
        ("timestamp-millis", "local-timestamp-micros", 5, 5),  # not the same thing: the number as it is
    ],
)
def test_units_of_time(writer: str, reader: str, number: int, seen: int | str) -> None:
    schemas = [json.dumps({"type": "long", "logicalType": name}) for name in (writer, reader)]
    datum = written("long", number)
    decoded = AvroDecoder(reader_schema=schemas[1], writer_schema=schemas[0], framing="none").decode(pa.array([datum]))
    if isinstance(seen, str):
        assert seen in decoded.errors[0].reason
    else:
        assert decoded.batch.column(0).cast(pa.int64()).to_pylist() == [seen]


def test_a_schema_that_holds_itself() -> None:
    text = json.dumps(TREE)
    datums = [b"\2\2\4\0", b"\2\0", b"\2\2\4\2", b"\2\2" * 200 + b"\2\0"]

    with pytest.raises(UnsupportedSchemaError, match="f1 is a Tree within a Tree"):
        AvroDecoder(reader_schema=text, framing="none")

    decoder = AvroDecoder(reader_schema=text, framing="none", on_recursion="binary")
    decoded = decoder.decode(pa.array(datums))
    assert decoded.batch.to_pylist() == [{"f0": 1, "f1": b"\4\0"}, {"f0": 1, "f1": None}]
    assert [error.row for error in decoded.errors] == [2, 3]
    assert "too deep" in decoded.errors[1].reason
    assert [error.row for error in validate_datums(text, pa.array(datums)).errors] == [2, 3]
    # Left out by the reader, it is passed over.
    reader = json.dumps(record("Tree", ["int"]))
    decoder = AvroDecoder(reader_schema=reader, writer_schema=text, framing="none")
    assert decoder.decode(pa.array(datums[:2])).batch.to_pylist() == [{"f0": 1}] * 2


def test_schemas_that_would_make_too_many_columns() -> None:
    bomb: Any = record("T0", ["int"])
    for level in range(1, 20):
        bomb = record(f"T{level}", [bomb, f"T{level - 1}"])
    with pytest.raises(UnsupportedSchemaError, match="more than 10000 columns"):
        AvroDecoder(reader_schema=json.dumps(bomb), framing="none")
    deep: Any = "int"
    for _ in range(80):
        deep = {"type": "array", "items": deep}
    with pytest.raises(UnsupportedSchemaError, match="deeper than"):
        AvroDecoder(reader_schema=json.dumps(deep), framing="none")
    # Both can be validated: what is used again is skipped by the same instructions.
    validator = AvroValidator(writer_schema=json.dumps(bomb), framing="none")
    assert validator.validate(pa.array([b"\0" * 2**19])).errors == []


def test_graphs_far_deeper_than_their_text() -> None:
    chain: list[Any] = [record("T0", ["int"])] + [record(f"T{number}", [f"T{number - 1}"]) for number in range(1, 2000)]
    validator = AvroValidator(writer_schema=json.dumps(chain), framing="none")
    found = validator.validate(pa.array([written("long", 50) + b"\0", written("long", 1999) + b"\0"]))
    assert [error.row for error in found.errors] == [1]
    assert "too deep" in found.errors[0].reason


def test_a_default_that_holds_itself() -> None:
    holder = {"name": "q", "type": ["null", "Z"], "default": None}
    added = {"name": "z", "type": {"type": "record", "name": "Z", "fields": [holder]}, "default": {}}
    writer = record("R", ["int"])
    reader = writer | {"fields": [*writer["fields"], added]}
    decoder = AvroDecoder({1: json.dumps(writer)}, json.dumps(reader), on_recursion="binary")
    assert decoder.decode(pa.array([framed(1, b"\2")])).batch.to_pylist() == [{"f0": 1, "z": {"q": None}}]


def test_records_without_fields() -> None:
    text = json.dumps(record("Empty", []))
    batch = AvroDecoder({1: text}).decode(pa.array([framed(1, b"")] * 3)).batch
    assert batch.num_rows == 3
    assert AvroEncoder(text, 1).encode(batch).to_pylist() == [framed(1, b"")] * 3


@pytest.mark.parametrize("leaf", [[], ["null"], [{"type": "fixed", "name": "F", "size": 0}]])
def test_skipping_records_that_take_no_bytes_is_no_work(leaf: list[Any]) -> None:
    type_ = record("R0", leaf)
    for level in range(1, 60):
        type_ = record(f"R{level}", [type_, f"R{level - 1}"])  # 2^59 of the first
    writer, reader = json.dumps(record("R", ["int", type_, "int"])), json.dumps(record("R", ["int"]))
    decoder = AvroDecoder(reader_schema=reader, writer_schema=writer, framing="none")
    decoded = decoder.decode(pa.array([b"\2\4", b"\2"]))
    assert decoded.batch.to_pylist() == [{"f0": 1}]
    assert [error.row for error in decoded.errors] == [1]
    assert [error.row for error in validate_datums(writer, pa.array([b"\2\4", b"\2"])).errors] == [1]


def test_a_record_of_nothing_but_itself_has_no_values() -> None:
    endless = {"type": "record", "name": "E", "fields": [{"name": "e", "type": "E"}]}
    assert "too deep" in validate_datums(json.dumps(endless), pa.array([b""])).errors[0].reason


def test_output_is_bounded() -> None:
    text = json.dumps({"type": "record", "name": "R", "fields": [{"name": "f", "type": "bytes"}]})
    decoder = AvroDecoder(reader_schema=text, framing="none", size_bytes_max=1 << 20)
    large, small = written("bytes", b"x" * (1 << 20)), written("bytes", b"x" * 1000)
    decoded = decoder.decode(pa.array([large, small]))
    assert [error.row for error in decoded.errors] == [0]
    assert decoded.batch.column(0).to_pylist() == [b"x" * 1000]
    with pytest.raises(DecodedTooLargeError, match="decode fewer values at once"):
        decoder.decode(pa.array([small] * 2000))


def test_room_kept_for_others_rejects_nothing() -> None:
    text = json.dumps(record("R", ["long", "string"]))
    large, small = written("long", 1) + written("string", "x" * 60_000), b"\2\2y"
    decoder = AvroDecoder(reader_schema=text, framing="none", size_bytes_max=70_000)
    with pytest.raises(DecodedTooLargeError, match="decode fewer values at once"):
        decoder.decode(pa.array([large] + [small] * 999))
    assert decoder.decode(pa.array([large])).errors == []
    # What is bad for another reason says so.
    decoded = decoder.decode(pa.array([large + b"\0"] + [small] * 999))
    assert "bytes are left behind" in decoded.errors[0].reason
    assert decoded.batch.num_rows == 999


def test_the_bound_is_of_what_is_needed() -> None:
    # Twice the room that a column has goes beyond it, what is asked for does not.
    value = written(LONGS, [1] * 700)
    decoder = AvroDecoder(reader_schema=json.dumps(LONGS), framing="none", size_bytes_max=8_000)
    two_blocks = written("long", 600) + b"\2" * 600 + written("long", 100) + b"\2" * 100 + b"\0"
    assert decoder.decode(pa.array([value])).batch.num_rows == 1
    assert decoder.decode(pa.array([two_blocks])).batch.num_rows == 1
    # What columns are thought to need does, together.
    text = json.dumps(record("R", ["string"] * 10))
    decoder = AvroDecoder(reader_schema=text, framing="none", size_bytes_max=100_000)
    assert decoder.decode(pa.array([b"\2x" * 10] * 1_000)).batch.num_rows == 1_000


def test_lists_of_large_fixed_take_no_room_before_there_are_any() -> None:
    items = {"type": "array", "items": {"type": "fixed", "name": "F", "size": 100_000_000}}
    decoder = AvroDecoder(reader_schema=json.dumps(items), framing="none", size_bytes_max=100_000)
    assert decoder.decode(pa.array([b"\0"] * 10)).batch.column(0).to_pylist() == [[]] * 10


def test_threads_share_a_decoder() -> None:
    writers = {number: json.dumps(record("R", ["long", *["string"] * (number % 3)])) for number in range(100)}
    decoder = AvroDecoder(writers.__getitem__, json.dumps(record("R", ["long"])))

    def decode(step: int) -> None:
        for turn in range(100):
            number = turn * step % 100
            value = framed(number, b"\2" + b"\2x" * (number % 3))
            assert decoder.decode(pa.array([value] * 500)).batch.column(0).to_pylist() == [1] * 500

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(decode, step) for step in (1, 7, 13, 29)]:
            done.result(60)


class Unknowing:
    """Knows the schema 0 alone, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def schema(self, schema_id: int) -> ParsedSchema:
        self.asked.append(schema_id)
        if schema_id:
            raise RegistryError(40403, 404, "Schema not found")
        return parse("AVRO", '"int"')


def test_ids_without_a_schema_are_remembered_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("millstream.schemas.avro.decoder.time.monotonic", lambda: now)
    registry = Unknowing()
    decoder = AvroDecoder(registry)
    for _ in range(3):
        assert len(decoder.decode(pa.array([framed(1, b""), framed(0, b"\2")])).errors) == 1
    assert registry.asked == [1, 0]
    now += UNKNOWN_KEPT_S
    decoder.decode(pa.array([framed(1, b"")]))
    assert registry.asked == [1, 0, 1]
    for first in range(2, UNKNOWN_IDS_MAX + 200, 50):
        decoder.decode(pa.array([framed(number, b"") for number in range(first, first + 50)]))
        assert len(decoder._unknown) <= UNKNOWN_IDS_MAX


def test_a_call_looks_up_few_ids_without_a_schema() -> None:
    registry = Unknowing()
    decoder = AvroDecoder(registry)
    values = pa.array([framed(number, b"") for number in range(1, FAILED_LOOKUPS_MAX + 2)])
    with pytest.raises(TooManyUnknownIdsError, match="decode fewer values at once"):
        decoder.decode(values)
    assert len(registry.asked) == FAILED_LOOKUPS_MAX
    assert len(decoder.decode(values).errors) == FAILED_LOOKUPS_MAX + 1


def test_what_a_mapping_lacks_may_be_there_next() -> None:
    schemas: dict[int, str] = {}
    decoder = AvroDecoder(schemas)
    values = pa.array([framed(number, b"\2") for number in range(100)])
    assert len(decoder.decode(values).errors) == 100
    schemas[5] = '"int"'
    assert decoder.decode(values).batch.to_pylist() == [{"value": 1}]


@pytest.mark.parametrize("bound", ["_POOL_BYTES_MAX", "_TABLES_MAX"])
def test_programs_are_dropped_where_what_is_beside_them_grows(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_module, bound, 2_500)
    symbols = [f"S{number}" for number in range(1_000)]
    enum = {"type": "enum", "name": "E", "symbols": symbols}
    reader = record("R", [{**enum, "symbols": symbols[::-1]}, "string"])
    reader["fields"][1]["default"] = "x" * 1_000
    ids = range(100)
    decoder = AvroDecoder(dict.fromkeys(ids, json.dumps(record("R", [enum]))), json.dumps(reader))
    decoded = decoder.decode(pa.array([framed(number, b"\2") for number in ids]))
    assert decoded.batch.to_pylist() == [{"f0": "S1", "f1": "x" * 1_000}] * len(ids)
    assert len(decoder._ids) < 4


def test_an_error_in_compiling_is_not_taken_for_an_unknown_id(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: Any, **_options: Any) -> int:
        raise KeyError("a mistake of ours")

    decoder = AvroDecoder({1: '"int"'}, '"int"')
    monkeypatch.setattr("millstream.schemas.avro.decoder.Program.add", broken)
    with pytest.raises(KeyError, match="a mistake of ours"):
        decoder.decode(pa.array([framed(1, b"\2")]))


def test_what_was_large_once_costs_nothing_later() -> None:
    text = json.dumps({"type": "array", "items": "boolean"})
    decoder = AvroDecoder(reader_schema=text, framing="none", size_bytes_max=1 << 24)
    large = written(json.loads(text), [True] * 100_000)
    assert decoder.decode(pa.array([large] * 100)).errors == []
    assert decoder.decode(pa.array([b"\0"] * 100_000)).batch.num_rows == 100_000


def steps_of(function: Callable[[], Any]) -> int:
    """Return how many functions were entered: of time that does not depend on the machine."""
    count = 0

    def entered(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(entered)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def test_many_columns_take_as_much_longer_as_there_are_more() -> None:
    steps = []
    for columns in (100, 1_000):
        text = json.dumps(record("R", [["null", "long"]] * columns))
        decoder = AvroDecoder(reader_schema=text, framing="none")
        values = pa.array([b"\2\2" * columns] * 10)
        steps.append(steps_of(lambda decoder=decoder, values=values: decoder.decode(values)))  # type: ignore[misc]
    assert steps[1] < 20 * steps[0], steps


def test_unions_as_dense_ones() -> None:
    schema = ["null", "int", "string"]
    decoder = AvroDecoder(reader_schema=json.dumps(schema), framing="none", on_union="dense_union")
    batch = decoder.decode(pa.array([b"\2\2", b"\0", b"\4\2a", b"\6", b"\2\4"])).batch
    assert pa.types.is_union(batch.schema.field(0).type)
    assert batch.column(0).to_pylist() == [1, None, "a", 2]


def test_a_table_is_cast_and_completed() -> None:
    fields = [
        {"name": "id", "type": "long"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "kind", "type": {"type": "enum", "name": "K", "symbols": ["A", "B"]}, "default": "A"},
        {"name": "note", "type": ["null", "string"]},
    ]
    text = json.dumps({"type": "record", "name": "R", "fields": fields})
    table = pa.table({"at": pa.array([1_000_000], pa.timestamp("us")), "id": pa.array([3], pa.int8())})

    encoded = AvroEncoder(text, 7).encode(table)

    decoded = AvroDecoder({7: text}).decode(encoded)
    assert decoded.batch.column("id").to_pylist() == [3]
    assert decoded.batch.column("kind").to_pylist() == ["A"]
    assert decoded.batch.column("note").to_pylist() == [None]
    assert decoded.batch.column("at").cast(pa.int64()).to_pylist() == [1_000]
    with pytest.raises(EncodeError, match="no column is named id"):
        AvroEncoder(text, 7).encode(table.drop_columns("id"))
    with pytest.raises(EncodeError, match="would lose data"):
        AvroEncoder(text, 7).encode(table.set_column(0, "at", pa.array([1_000_001], pa.timestamp("us"))))
