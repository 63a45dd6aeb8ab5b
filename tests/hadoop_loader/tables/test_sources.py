"""Tables of topics whose schemas are JSON Schemas or Protobuf."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from millstream.hadoop_loader.tables import all_tables, merge
from millstream.hadoop_loader.tables.writers import writer_number
from millstream.schemas.avro import JsonDecoder, UnsupportedSchemaError
from millstream.schemas.parsing import ParsedSchema, Reference, SchemaType, parse
from millstream.schemas.protobuf import ProtobufDecoder

ADDRESS = {"type": "object", "properties": {"city": {"type": "string"}}}


def json_schema(**properties: Any) -> ParsedSchema:
    text = json.dumps({"type": "object", "properties": properties, "$defs": {"Address": ADDRESS}})
    return parse(SchemaType.JSON, text)


def test_json_values_are_read_by_the_table_of_their_schemas() -> None:
    first = json_schema(
        id={"type": "integer"},
        name={"type": ["null", "string"]},
        kind={"enum": ["a", "b"]},
        home={"$ref": "#/$defs/Address"},
        sizes={"type": "array", "items": {"type": "number"}},
        spare={"oneOf": [{"type": "null"}, {"type": "boolean"}]},
    )
    second = json_schema(id={"type": "integer"}, note={"type": "string"})

    merged = merge(merge(None, {1: first}, topic="people").document, {2: second}, topic="people")

    assert merged.version.name == "people"
    assert [source.type for source in merged.version.sources.values()] == ["JSON", "JSON"]
    columns = merged.version.arrow_schema()
    assert columns is not None
    value = {"id": 1, "name": None, "kind": "b", "home": {"city": "X"}, "sizes": [1.5], "spare": True, "note": "n"}
    decoded = JsonDecoder(columns).decode(pa.array([json.dumps(value), '{"id": 2}']))
    assert not decoded.errors
    assert decoded.batch.to_pylist() == [value, dict.fromkeys(value) | {"id": 2}]


def test_objects_whose_paths_are_spelt_alike_are_two_records() -> None:
    inner = {"type": "object", "properties": {"x": {"type": "integer"}}}
    outer = {"type": "object", "properties": {"b": {"type": "object", "properties": {"y": {"type": "string"}}}}}
    columns = merge(None, {1: json_schema(a_b=inner, a=outer)}, topic="t").version.arrow_schema()
    assert columns is not None
    value = {"a_b": {"x": 1}, "a": {"b": {"y": "z"}}}
    assert JsonDecoder(columns).decode(pa.array([json.dumps(value)])).batch.to_pylist() == [value]


@pytest.mark.parametrize(
    ("properties", "complaint"),
    [
        ({"x": {"type": ["integer", "string"]}}, "Value_x is one of integer, string"),
        ({"x": {}}, "Value_x may be anything"),
        ({"x": {"type": "object"}}, "an object without properties"),
        ({"x": {"type": "array"}}, "an array of anything"),
        ({"a-b": {"type": "string"}}, "'a-b' of Value is no name"),
        ({"x": {"$ref": "#"}}, "holds itself"),
        ({"x": {"anyOf": [{"type": "string"}, ADDRESS]}}, "one of 2 schemas"),
    ],
)
def test_json_that_has_no_columns_is_refused_with_its_path(properties: Any, complaint: str) -> None:
    with pytest.raises(UnsupportedSchemaError, match=complaint):
        merge(None, {1: json_schema(**properties)}, topic="people")


def test_protobuf_values_are_read_by_the_table_of_their_schemas() -> None:
    common = 'syntax = "proto3"; package p; message Point { double x = 1; }'
    first = parse(
        SchemaType.PROTOBUF,
        'syntax = "proto3"; import "point.proto"; enum Kind { A = 0; B = 1; }'
        " message Shape { int32 id = 1; p.Point at = 2; repeated string tags = 3; Kind kind = 4; }",
        [Reference("point.proto", "point", 1)],
        {"point.proto": common},
    )
    second = parse(SchemaType.PROTOBUF, 'syntax = "proto3"; message Shape { int32 id = 1; optional string note = 5; }')

    merged = merge(merge(None, {1: first}, topic="shapes").document, {2: second}, topic="shapes")

    assert merged.version.name == "shapes"
    assert merged.version.sources[1].references == {"point.proto": common}
    columns = merged.version.arrow_schema()
    assert columns is not None
    decoder = ProtobufDecoder({1: first, 2: second}, columns=columns)
    values = [b"\0\0\0\0\1\0\x08\7\x12\0\x20\1", b"\0\0\0\0\2\0\x08\x09\x2a\1n"]
    decoded = decoder.decode(pa.array(values, pa.binary()))
    assert not decoded.errors
    found = [(row["id"], row["kind"], row["note"]) for row in decoded.batch.to_pylist()]
    assert found == [
        (7, "B", None),
        (9, None, "n"),
    ]


def test_messages_of_one_short_name_have_tables_of_their_own() -> None:
    text = 'syntax = "proto3"; package a; message Line { %s x = 1; } message Order { message Line { int64 x = 1; } }'
    before, after = (parse(SchemaType.PROTOBUF, text % kind) for kind in ("string", "bytes"))
    elsewhere = parse(SchemaType.PROTOBUF, 'syntax = "proto3"; package b; message Line { string x = 1; int32 y = 2; }')
    inner = writer_number(1, (1, 0))

    first = merge(None, {1: before}, topic="lines")
    second = merge(first.document, {inner: before, 2: elsewhere}, topic="lines")
    third = merge(second.document, {3: after}, topic="lines")

    assert [table.name for table in all_tables(third.document, "lines") if table.writers] == [
        "lines.v2",
        "lines.v3",
        "lines.v4",
    ]
    homes = {number: third.version.table_of(number) for number in (1, 3, 2, inner)}
    assert {number: home and home.name for number, home in homes.items()} == {
        1: "lines.v4",
        3: "lines.v4",
        2: "lines.v2",
        inner: "lines.v3",
    }
    assert [change.sentence for change in second.changes] == [
        "table lines.v2 begins beside lines: its values are of another message, b.Line",
        "table lines.v3 begins beside lines.v2: its values are of another message, a.Order.Line",
    ]
