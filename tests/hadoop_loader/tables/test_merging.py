"""Merging writers' schemas: what a table becomes, when a generation begins, and that every datum is still read."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.avro_schemas import alike, chains, read, values, written

from millstream.hadoop_loader.tables import ChangeKind, Merged, SchemaChangedError, TableVersion, merge, table_version
from millstream.hadoop_loader.tables.writers import writer_number
from millstream.schemas.avro import AvroDecoder
from millstream.schemas.parsing import SchemaType, parse

FINE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def record(*fields: tuple[Any, ...], name: str = "Order") -> str:
    """Return a record's schema; fields are (name, type) or (name, type, more)."""
    return json.dumps(
        {
            "type": "record",
            "name": name,
            "fields": [
                {"name": field[0], "type": field[1], **(field[2] if len(field) > 2 else {})} for field in fields
            ],
        }
    )


def grown(*schemas: str, parquet: bool = True) -> list[Merged]:
    """Merge schemas one after the other, each into the document that the last one left."""
    merged: list[Merged] = []
    for schema_id, schema in enumerate(schemas):
        before = merged[-1].document if merged else None
        # As the commit log keeps it.
        before = json.loads(json.dumps(before))
        merged.append(merge(before, {schema_id: schema}, topic="orders", parquet=parquet))
    return merged


def fields_of(table: TableVersion) -> list[tuple[Any, ...]]:
    assert table.avro_schema is not None
    return [(field["name"], field["type"]) for field in json.loads(table.avro_schema)["fields"]]


def test_a_new_column_is_told_with_its_type() -> None:
    rate = ("rate", ["null", "double"], {"default": None})
    code = ("code", ["null", "int", "string"], {"default": None})

    steps = grown(record(("id", "int")), record(("id", "int"), rate, code))

    assert [change.sentence for step in steps for change in step.changes] == [
        "table orders is new",
        "orders: rate is new, null or double",
        "orders: code is new, null, int or string",
    ]


def test_a_table_follows_its_writers() -> None:
    enum = {"type": "enum", "name": "Kind", "symbols": ["A"]}
    steps = grown(
        record(("id", "int"), ("kind", enum), ("inner", {"type": "record", "name": "In", "fields": []})),
        record(
            ("id", ["null", "int"]),
            ("kind", enum | {"symbols": ["A", "B"]}),
            ("inner", {"type": "record", "name": "In", "fields": [{"name": "x", "type": "string", "default": ""}]}),
            ("note", "string", {"default": "none"}),
        ),
        record(("id", "int"), ("tags", {"type": "array", "items": "string"})),
    )

    last = steps[-1]
    assert last.version.name == "orders"
    assert last.version.version == 3
    assert fields_of(last.version) == [
        ("id", ["null", "int"]),
        ("kind", ["null", enum | {"symbols": ["A", "B"]}]),
        (
            "inner",
            [
                "null",
                {
                    "type": "record",
                    "name": "In",
                    "fields": [{"name": "x", "type": "string", "default": "", "millstream.added": True}],
                },
            ],
        ),
        ("note", "string"),
        ("tags", ["null", {"type": "array", "items": "string"}]),
    ]
    kinds = {change.kind for step in steps for change in step.changes}
    assert kinds == {
        ChangeKind.TABLE_CREATED,
        ChangeKind.MADE_NULLABLE,
        ChangeKind.SYMBOLS_ADDED,
        ChangeKind.FIELD_ADDED,
        ChangeKind.FIELD_OPTIONAL,
    }
    assert [change.sentence for change in steps[1].changes][-1] == "orders: note is new, string"
    columns = last.version.arrow_schema()
    assert columns is not None
    assert columns.field("note").nullable, "files written before lack it"
    assert [one for one in range(3) if last.version.passes_through(one)] == []
    assert steps[1].version.passes_through(1), "the newest writer's datums are the table's"


BREAKING = {
    "int to long": (record(("x", "int")), record(("x", "long"))),
    "long to double": (record(("x", "long")), record(("x", "double"))),
    "float and int": (record(("x", "float")), record(("x", "int"))),
    "string to bytes": (record(("x", "string")), record(("x", "bytes"))),
    "one type to several": (record(("x", ["null", "int"])), record(("x", ["null", "int", "string"]))),
    "renamed": (record(("x", "int")), record(("y", "int", {"aliases": ["x"]}))),
    "another unit": (
        record(("x", {"type": "long", "logicalType": "timestamp-millis"})),
        record(("x", {"type": "long", "logicalType": "timestamp-micros"})),
    ),
    "nested": (
        record(("x", {"type": "array", "items": {"type": "map", "values": "int"}})),
        record(("x", {"type": "array", "items": {"type": "map", "values": "long"}})),
    ),
}


@pytest.mark.parametrize("case", BREAKING)
def test_what_readers_of_parquet_cannot_follow_opens_a_generation_that_reads_both(case: str) -> None:
    before, after = BREAKING[case]

    first, second = grown(before, after)

    assert (first.version.name, second.version.name) == ("orders", "orders.v2")
    assert second.changes[0].kind is ChangeKind.GENERATION_OPENED
    assert set(second.version.writers) == {0, 1}, "what still comes of the old writer goes there as well"
    assert second.version.others == ()


INCOMPATIBLE = {
    "text and number": (record(("x", "string")), record(("x", "int"))),
    "another record": (record(("x", "int")), record(("x", "int"), name="Payment")),
    "another meaning": (
        record(("x", {"type": "int", "logicalType": "date"})),
        record(("x", {"type": "int", "logicalType": "time-millis"})),
    ),
    "another scale": (
        record(("x", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2})),
        record(("x", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 3})),
    ),
    "another size": (
        record(("x", {"type": "fixed", "name": "F", "size": 4})),
        record(("x", {"type": "fixed", "name": "F", "size": 5})),
    ),
    "only case": (record(("x", "int")), record(("X", "int"))),
    "it holds itself": (
        record(("x", ["null", {"type": "array", "items": "Order"}])),
        record(("x", ["null", {"type": "array", "items": "Order"}]), ("y", "int")),
    ),
}


@pytest.mark.parametrize("case", INCOMPATIBLE)
def test_what_no_schema_reads_gets_tables_of_its_own_that_both_go_on(case: str) -> None:
    before, after = INCOMPATIBLE[case]
    more = json.loads(before)
    more["fields"].append({"name": "more", "type": ["null", "string"], "default": None})

    *_, third = grown(before, after, json.dumps(more))

    table = third.version
    if case == "it holds itself":
        assert [one.name for one in table.tables()] == ["orders.v3", "orders.v2", "orders"]
        return
    assert [(one.name, sorted(one.writers)) for one in table.tables()] == [("orders.v2", [1]), ("orders", [0, 2])]
    assert table.table_of(2) is table.others[0]
    assert table.table_of(3) is None
    assert [change.table for change in third.changes] == ["orders"]


def test_without_parquet_numbers_may_widen_within_a_table() -> None:
    _, second = grown(*BREAKING["int to long"], parquet=False)

    assert second.version.name == "orders"
    assert fields_of(second.version) == [("x", "long")]


def test_schemas_met_at_once_make_one_table() -> None:
    schemas = {7: record(("x", "int")), 3: record(("x", "long")), 9: record(("x", "int"), ("y", "int"))}

    merged = merge(None, schemas, topic="orders")

    assert [one.name for one in merged.version.tables()] == ["orders"]
    assert sorted(merged.version.writers) == [3, 7, 9]
    backwards = merge(None, dict(reversed(schemas.items())), topic="orders")
    assert backwards.document == merged.document


def test_under_fail_nothing_changes_but_what_the_table_covers_is_taken() -> None:
    first = merge(None, {1: record(("x", "long"), ("y", "int", {"default": 0}))}, "fail", topic="orders")

    covered = merge(first.document, {2: record(("x", "int"))}, "fail", topic="orders")
    with pytest.raises(SchemaChangedError, match=r"schema 3 .* orders: z is new") as caught:
        merge(covered.document, {3: record(("x", "int"), ("z", "int"))}, "fail", topic="orders")

    assert covered.version.avro_schema == first.version.avro_schema
    assert covered.version.table_of(2) is covered.version
    assert caught.value.topic == "orders"


def test_a_document_has_the_format_of_what_is_in_it() -> None:
    schema = parse(SchemaType.PROTOBUF, 'syntax = "proto3"; message A { int32 x = 1; } message B { int32 y = 1; }')
    plain = merge(None, {1: schema}, topic="orders").document
    messages = merge(plain, {writer_number(1, (1,)): schema}, topic="orders").document
    keys = merge(plain, {}, topic="orders", keys={2: '"string"'}).document

    assert [one["format"] for one in (plain, messages, keys)] == [1, 2, 2]
    for document in (plain, messages, keys):
        assert merge(document, {}, topic="orders").document is document
    with pytest.raises(ValueError, match="format 3: written by a newer version of millstream; use that one here"):
        merge({**plain, "format": 3}, {}, topic="orders")


def test_a_topic_without_schemas_has_a_table_without_one() -> None:
    merged = merge(None, {}, topic="raw")

    assert merged.version == TableVersion("raw", "raw")
    assert merged.version.arrow_schema() is None
    assert table_version(merged.document, "raw") == merged.version


@settings(deadline=None, max_examples=100, suppress_health_check=FINE)
@given(chain=chains(), parquet=st.booleans(), data=st.data())
def test_every_datum_of_every_writer_is_read_under_its_table(
    chain: list[Any], parquet: bool, data: st.DataObject
) -> None:
    texts = [json.dumps(schema) for schema in chain]

    merged = grown(*texts, parquet=parquet)[-1]
    again = merge(merged.document, dict(enumerate(texts)), topic="orders", parquet=parquet)

    assert again.document is merged.document
    assert not again.changes
    for schema_id, writer in enumerate(chain):
        table = merged.version.table_of(schema_id)
        assert table is not None
        assert table.avro_schema is not None
        try:
            datum = written(writer, data.draw(values(writer)))
        except ValueError:
            # Of a union fastavro may take a branch that the value does not fit.
            continue
        for text in (table.avro_schema, table.parquet_avro_schema):
            decoder = AvroDecoder(
                reader_schema=text, writer_schema=texts[schema_id], framing="none", on_recursion="binary"
            )
            decoded = decoder.decode(pa.array([datum], pa.binary()))
            assert not decoded.errors, text
            assert decoded.batch.num_rows == 1
        mine = read(datum, writer)
        try:
            theirs = read(datum, writer, json.loads(table.avro_schema))
        except TypeError:
            # fastavro knows no type that the reader's schema uses a second time, by its name.
            continue
        if not isinstance(writer, dict) or writer["type"] != "record":
            continue
        fields = json.loads(table.avro_schema)["fields"]
        called = {name: field["name"] for field in fields for name in (*field.get("aliases", ()), field["name"])}
        for name, one in mine.items():
            found = theirs[called[name]]
            if not isinstance(one, (dict, list)):
                promoted = isinstance(one, str) and found == one.encode()
                assert promoted or alike(found, one, plain=True), name
