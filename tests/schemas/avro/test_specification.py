"""The Avro specification, 1.12: its examples of bytes, each of its rules for schema resolution, its logical types."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from millstream.schemas.avro import AvroDecoder, AvroEncoder

Json = Any
FOO = {"type": "enum", "name": "Foo", "symbols": ["A", "B", "C", "D"]}
LONGS = {"type": "array", "items": "long"}
PAIR = {"type": "record", "name": "test", "fields": [{"name": "a", "type": "long"}, {"name": "b", "type": "string"}]}


def read(datum: bytes, reader: Json, writer: Json | None = None) -> Any:
    """Return what a datum is to a reader: the row of a record, else the value; a refusal's reason in a list."""
    decoder = AvroDecoder(
        reader_schema=json.dumps(reader),
        writer_schema=json.dumps(reader if writer is None else writer),
        framing="none",
    )
    decoded = decoder.decode(pa.array([datum]))
    decoded.batch.validate(full=True)
    if decoded.errors:
        return [decoded.errors[0].reason]
    row = decoded.batch.to_pylist()[0]
    return row if isinstance(reader, dict) and reader["type"] == "record" else row["value"]


def record(name: str, *fields: Json, **more: Json) -> Json:
    return {
        "type": "record",
        "name": name,
        "fields": [{"name": field[0], "type": field[1], **(field[2] if len(field) > 2 else {})} for field in fields],
        **more,
    }


# "Binary Encoding".


@pytest.mark.parametrize(
    ("schema", "value", "datum"),
    [
        ("null", None, ""),
        ("boolean", True, "01"),
        ("boolean", False, "00"),
        # The table of zigzag numbers.
        ("int", 0, "00"),
        ("int", -1, "01"),
        ("int", 1, "02"),
        ("int", -2, "03"),
        ("int", 2, "04"),
        ("int", -64, "7f"),
        ("int", 64, "80 01"),
        ("long", 8192, "80 80 01"),
        ("long", -(2**63), "ff ff ff ff ff ff ff ff ff 01"),
        ("float", 1.0, "00 00 80 3f"),
        ("double", 1.0, "00 00 00 00 00 00 f0 3f"),
        ("bytes", b"\xff\x00", "04 ff 00"),
        ("string", "foo", "06 66 6f 6f"),
        (PAIR, {"a": 27, "b": "foo"}, "36 06 66 6f 6f"),
        (FOO, "A", "00"),
        (FOO, "D", "06"),
        (LONGS, [3, 27], "04 06 36 00"),
        (LONGS, [], "00"),
        ({"type": "map", "values": "long"}, [("a", 1)], "02 02 61 02 00"),
        (["null", "string"], None, "00"),
        (["null", "string"], "a", "02 02 61"),
        (["string", "null"], None, "02"),
        ({"type": "fixed", "name": "md5", "size": 3}, b"\x01\x02\x03", "01 02 03"),
    ],
)
def test_examples_of_bytes(schema: Json, value: Any, datum: str) -> None:
    content = bytes.fromhex(datum)
    assert read(content, schema) == value
    decoded = AvroDecoder(reader_schema=json.dumps(schema), framing="none").decode(pa.array([content]))
    assert AvroEncoder(json.dumps(schema)).encode(decoded.batch).to_pylist() == [content]


@pytest.mark.parametrize(
    ("schema", "value", "datum"),
    [
        (LONGS, [3, 27], "03 04 06 36 00"),  # a block's count negated, and its size in bytes
        (LONGS, [3, 27], "02 06 02 36 00"),  # two blocks
        ({"type": "map", "values": "long"}, [("a", 1), ("b", 2)], "01 06 02 61 02 02 02 62 04 00"),
        ("long", 0, "80 80 80 80 80 80 80 80 80 00"),  # longer than it needs to be
    ],
)
def test_other_bytes_for_the_same(schema: Json, value: Any, datum: str) -> None:
    assert read(bytes.fromhex(datum), schema) == value


# "Schema Resolution": what matches.


@pytest.mark.parametrize(
    ("writer", "reader", "datum", "value"),
    [
        ("int", "long", "01", -1),
        ("int", "float", "04", 2.0),
        ("int", "double", "04", 2.0),
        ("long", "float", "04", 2.0),
        ("long", "double", "04", 2.0),
        ("float", "double", "00 00 c0 3f", 1.5),
        ("string", "bytes", "04 c3 a9", b"\xc3\xa9"),
        ("bytes", "string", "04 c3 a9", "é"),
    ],
)
def test_promotions(writer: str, reader: str, datum: str, value: Any) -> None:
    assert read(bytes.fromhex(datum), reader, writer) == value


PLAIN = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
PROMOTED = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}


@pytest.mark.parametrize("writer", PLAIN)
@pytest.mark.parametrize("reader", PLAIN)
def test_primitive_types_match_themselves_and_what_they_are_promoted_to(writer: str, reader: str) -> None:
    datum = {"null": b"", "float": bytes(4), "double": bytes(8)}.get(writer, b"\0")
    found = read(datum, reader, writer)
    if reader == writer or reader in PROMOTED.get(writer, ()):
        assert not isinstance(found, list)
    else:
        assert found[0].startswith(("value: ", "null is no "))


@pytest.mark.parametrize(
    ("writer", "reader", "datum", "value"),
    [
        (LONGS, {"type": "array", "items": "double"}, "04 06 36 00", [3.0, 27.0]),
        ({"type": "map", "values": "int"}, {"type": "map", "values": "long"}, "02 02 61 02 00", [("a", 1)]),
        ({"type": "fixed", "name": "n.F", "size": 2}, {"type": "fixed", "name": "m.F", "size": 2}, "61 62", b"ab"),
        (
            {"type": "enum", "name": "n.E", "symbols": ["A"]},
            {"type": "enum", "name": "m.E", "symbols": ["A"]},
            "00",
            "A",
        ),
        (record("n.R", ("a", "int")), record("m.R", ("a", "long")), "02", {"a": 1}),
    ],
)
def test_types_made_of_others_match(writer: Json, reader: Json, datum: str, value: Any) -> None:
    assert read(bytes.fromhex(datum), reader, writer) == value


@pytest.mark.parametrize(
    ("writer", "reader", "datum", "reason"),
    [
        (LONGS, {"type": "array", "items": "string"}, "02 06 00", "long cannot be read as string"),
        (LONGS, {"type": "map", "values": "long"}, "00", "array cannot be read as map"),
        (
            {"type": "map", "values": "int"},
            {"type": "map", "values": "string"},
            "02 02 61 02 00",
            "int cannot be read as string",
        ),
        ({"type": "fixed", "name": "F", "size": 2}, {"type": "fixed", "name": "F", "size": 3}, "61 62", "2 bytes of F"),
        ({"type": "fixed", "name": "F", "size": 2}, {"type": "fixed", "name": "G", "size": 2}, "61 62", "F is no G"),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, FOO, "00", "E is no Foo"),
        (record("R"), record("S"), "", "R is no S"),
    ],
)
def test_what_does_not_match(writer: Json, reader: Json, datum: str, reason: str) -> None:
    assert reason in read(bytes.fromhex(datum), reader, writer)[0]


# "Schema Resolution": records.


def test_fields_are_matched_by_name_in_any_order() -> None:
    writer = record("R", ("a", "int"), ("b", record("S", ("x", "int"), ("y", "string"))))
    reader = record("R", ("b", record("S", ("y", "string"), ("x", "long"))), ("a", "int"))
    assert read(bytes.fromhex("02 04 02 71"), reader, writer) == {"b": {"y": "q", "x": 2}, "a": 1}


def test_fields_that_the_reader_lacks_are_ignored() -> None:
    kinds: list[Json] = ["boolean", "float", LONGS, {"type": "map", "values": FOO}, ["null", "bytes"], "string"]
    writer = record("R", *((f"f{number}", kind) for number, kind in enumerate(kinds)), ("last", "int"))
    datum = "01 00000000 04 06 36 00 02 02 61 06 00 02 02 ff 06 66 6f 6f 0a"
    assert read(bytes.fromhex(datum), record("R", ("last", "int")), writer) == {"last": 5}


@pytest.mark.parametrize(
    ("type_", "default", "value"),
    [
        # The table of field default values.
        ("null", None, None),
        ("boolean", True, True),
        ("int", 1, 1),
        ("long", 1, 1),
        ("float", 1.5, 1.5),
        ("double", 1.1, 1.1),
        ("bytes", "\u00ff", b"\xff"),
        ("string", "foo", "foo"),
        (record("S", ("a", "int")), {"a": 1}, {"a": 1}),
        ({"type": "enum", "name": "E", "symbols": ["FOO", "BAR"]}, "FOO", "FOO"),
        ({"type": "array", "items": "int"}, [1], [1]),
        ({"type": "map", "values": "int"}, {"a": 1}, [("a", 1)]),
        ({"type": "fixed", "name": "F", "size": 1}, "\u00ff", b"\xff"),
        # "the default value for a union field corresponds to the first schema that matches"
        (["null", "string"], None, None),
        (["string", "null"], "s", "s"),
        (["null", "string"], "s", "s"),
        (record("S", ("a", "int"), ("b", "int", {"default": 2})), {"a": 1}, {"a": 1, "b": 2}),
    ],
)
def test_fields_that_the_writer_lacks_take_their_default(type_: Json, default: Json, value: Any) -> None:
    reader = record("R", ("new", type_, {"default": default}), ("a", "int"))
    assert read(b"\2", reader, record("R", ("a", "int"))) == {"new": value, "a": 1}


def test_without_a_default_it_is_an_error() -> None:
    reasons = read(b"\2", record("R", ("new", "int"), ("a", "int")), record("R", ("a", "int")))
    assert "the writer's schema lacks the field, and it has no default" in reasons[0]


def test_docs_are_ignored() -> None:
    assert read(b"\2", record("R", ("a", "int", {"doc": "one"}), doc="x"), record("R", ("a", "int"))) == {"a": 1}


# "Schema Resolution": enums.


def test_a_symbol_that_the_reader_lacks() -> None:
    reader = {"type": "enum", "name": "Foo", "symbols": ["C", "A"]}
    assert read(b"\0", reader, FOO) == "A"
    assert read(b"\4", reader, FOO) == "C"
    assert "the reader's enum lacks the symbol, and has no default" in read(b"\2", reader, FOO)[0]
    assert read(b"\2", reader | {"default": "C"}, FOO) == "C"


# "Schema Resolution": unions.


@pytest.mark.parametrize(
    ("writer", "reader", "datum", "value"),
    [
        # Both are unions: the first of the reader's that matches what was written.
        (["int", "string"], ["string", "int"], "00 02", {"string": None, "int": 1}),
        (["int", "string"], ["double", "string"], "00 02", {"double": 1.0, "string": None}),
        (["int", "null"], ["null", "long"], "02", None),
        # The reader's is one, the writer's isn't.
        ("int", ["null", "long"], "02", 1),
        ("string", ["null", "bytes"], "02 61", b"a"),
        # The writer's is one, the reader's isn't.
        (["null", "int"], "long", "02 02", 1),
        (["int", "string"], "string", "02 02 61", "a"),
    ],
)
def test_unions(writer: Json, reader: Json, datum: str, value: Any) -> None:
    assert read(bytes.fromhex(datum), reader, writer) == value


@pytest.mark.parametrize(
    ("writer", "reader", "datum", "reason"),
    [
        (["int", "string"], ["null", "int"], "02 02 61", "string cannot be read as int"),
        (["int", "boolean"], ["null", "int", "string"], "02 01", "boolean is none of"),
        ("boolean", ["null", "string"], "01", "boolean cannot be read as string"),
        (["null", "int"], "long", "00", "null is no long"),
        (["int", "string"], "int", "02 02 61", "string cannot be read as int"),
    ],
)
def test_unions_without_a_match(writer: Json, reader: Json, datum: str, reason: str) -> None:
    assert reason in read(bytes.fromhex(datum), reader, writer)[0]


# "Aliases".


def test_aliases_of_types_and_fields() -> None:
    # "if the writer's schema was named "Foo" and the reader's schema is named "Bar" and has an alias of "Foo""
    foo, bar = record("Foo", ("x", "int")), record("Bar", ("y", "long", {"aliases": ["x"]}), aliases=["Foo"])
    assert read(b"\2", bar, foo) == {"y": 1}
    # Relative to the namespace: the type a.b with the aliases "c" and "x.y" is also a.c and x.y.
    reader = record("a.b", ("n", "int"), aliases=["c", "x.y"])
    for name, is_meant in (("a.c", True), ("x.y", True), ("x.c", False), ("y", False)):
        found = read(b"\2", reader, record(name, ("n", "int")))
        assert found == {"n": 1} if is_meant else "nor an alias of it" in found[0]
    for kind, more, datum, value in (("fixed", {"size": 1}, b"a", b"a"), ("enum", {"symbols": ["A"]}, b"\0", "A")):
        written = {"type": kind, "name": "Old", **more}
        assert read(datum, {"type": kind, "name": "New", "aliases": ["Old"], **more}, written) == value


# "Logical Types".


def logical(kind: Json, name: str, **more: Json) -> Json:
    return (
        {"type": kind, "logicalType": name, **more} if isinstance(kind, str) else kind | {"logicalType": name, **more}
    )


@pytest.mark.parametrize(
    ("schema", "datum", "value"),
    [
        (logical("bytes", "decimal", precision=4, scale=2), "04 04 d2", Decimal("12.34")),
        (logical("bytes", "decimal", precision=4, scale=2), "02 ff", Decimal("-0.01")),
        (logical("bytes", "decimal", precision=4), "02 05", Decimal(5)),  # "if not specified, the scale is 0"
        (
            logical({"type": "fixed", "name": "D", "size": 4}, "decimal", precision=9, scale=1),
            "00 00 00 0f",
            Decimal("1.5"),
        ),
        (logical("string", "uuid"), "06 61 62 63", "abc"),
        (logical({"type": "fixed", "name": "U", "size": 16}, "uuid"), "00" * 15 + "01", UUID(int=1)),
        (logical("int", "date"), "00", date(1970, 1, 1)),
        (logical("int", "time-millis"), "d0 0f", time(0, 0, 1)),
        (logical("long", "time-micros"), "02", time(microsecond=1)),
        # Noon of January 1st, 2000, in Helsinki: 946720800000 as a moment, 946728000000 on the clock there.
        (logical("long", "timestamp-millis"), "80 f4 a7 cf 8d 37", datetime(2000, 1, 1, 10, tzinfo=UTC)),
        (logical("long", "local-timestamp-millis"), "80 e8 96 d6 8d 37", datetime(2000, 1, 1, 12)),
        (logical("long", "timestamp-micros"), "02", datetime(1970, 1, 1, microsecond=1, tzinfo=UTC)),
        (logical("long", "local-timestamp-micros"), "02", datetime(1970, 1, 1, microsecond=1)),
        (
            logical({"type": "fixed", "name": "I", "size": 12}, "duration"),
            "01000000 02000000 03000000",
            {"months": 1, "days": 2, "milliseconds": 3},
        ),
        (logical("bytes", "big-decimal"), "06 02 05 02", b"\x02\x05\x02"),
        # "Language implementations must ignore unknown logical types", and invalid ones.
        (logical("int", "no-such-type"), "02", 1),
        (logical("int", "timestamp-millis"), "02", 1),
        (logical("bytes", "decimal", precision=2, scale=3), "02 05", b"\x05"),
        (logical("bytes", "decimal"), "02 05", b"\x05"),
        (logical({"type": "fixed", "name": "U", "size": 2}, "uuid"), "61 62", b"ab"),
    ],
)
def test_logical_types(schema: Json, datum: str, value: Any) -> None:
    assert read(bytes.fromhex(datum), schema) == value


def test_nanoseconds() -> None:
    for name, zone in (("timestamp-nanos", "UTC"), ("local-timestamp-nanos", None)):
        decoder = AvroDecoder(reader_schema=json.dumps(logical("long", name)), framing="none")
        column = decoder.decode(pa.array([b"\2"])).batch.column(0)
        assert column.type == pa.timestamp("ns", zone)
        assert column.cast(pa.int64()).to_pylist() == [1]


def test_decimals_match_where_their_scales_do() -> None:
    writer = logical("bytes", "decimal", precision=4, scale=2)
    assert read(b"\2\5", logical("bytes", "decimal", precision=6, scale=2), writer) == Decimal("0.05")
    refused = read(b"\2\5", logical("bytes", "decimal", precision=6, scale=3), writer)
    assert "a decimal of scale 2 cannot be read as one of 3" in refused[0]
