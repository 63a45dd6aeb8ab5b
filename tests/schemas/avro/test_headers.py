"""Values whose headers name their schema: by GUID as Confluent's serializers do it, or by id."""

from __future__ import annotations

import json
import random
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from tests.support.avro_schemas import record, written
from tests.support.fake_registry import FakeRegistry

from millstream.schemas import AvroDeserializer, AvroSerializer, RegistryClient
from millstream.schemas.avro import AvroDecoder, AvroValidator, TooManyUnknownIdsError
from millstream.schemas.avro.decoder import FAILED_LOOKUPS_MAX
from millstream.schemas.avro.headers import NAMES_MAX
from millstream.schemas.client import RegistryError
from millstream.schemas.parsing import ParsedSchema, parse

LONG, TEXT = record("R", ["long"]), record("R", ["long", "string"])
HEADERS = pa.list_(pa.struct([pa.field("key", pa.string(), nullable=False), ("value", pa.binary())]))
GUID = UUID(int=0xA1)


def headers(rows: list[Any], type_: pa.DataType = HEADERS) -> pa.Array:
    return pa.array(
        rows
        if pa.types.is_map(type_)
        else [row and [{"key": key, "value": value} for key, value in row] for row in rows],
        type_,
    )


def guid_header(guid: UUID, name: str = "__value_schema_id") -> tuple[str, bytes]:
    return name, b"\1" + guid.bytes


def test_what_a_serializer_writes() -> None:
    rows: list[dict[str, Any]] = [{"f0": number, "f1": str(number)} for number in range(8)]
    with FakeRegistry() as fake, RegistryClient(fake.url) as registry:
        values, column = [], []
        for number, row in enumerate(rows):
            schema = TEXT if number % 2 else LONG
            serializer = AvroSerializer(
                registry, json.dumps(schema), id_in="prefix" if number % 3 == 0 else "header", strict=False
            )
            copied = [guid_header(GUID), ("other", None), ("__key_schema_id", b"")] if number > 4 else []
            values.append(serializer(row, topic=f"t{number % 2}", headers=copied))
            if number % 3 == 0:
                del copied[:1]
            column.append(copied)
        reader = json.dumps(TEXT | {"fields": [TEXT["fields"][0], TEXT["fields"][1] | {"default": ""}]})

        decoded = AvroDecoder(registry, reader).decode(pa.array(values), headers(column))

        assert decoded.errors == []
        assert decoded.batch.to_pylist() == [row if row["f0"] % 2 else row | {"f1": ""} for row in rows]
        single = AvroDeserializer(registry, reader)
        assert decoded.batch.to_pylist() == [
            single(value, topic="t", headers=given) for value, given in zip(values, column, strict=True)
        ]


def test_every_form_of_headers() -> None:
    schemas: dict[int | UUID, str] = {3: json.dumps(LONG), GUID: json.dumps(LONG)}
    framed, bare = b"\0\0\0\0\3\2", b"\4"
    values = pa.array([framed, bare, None, bare, bare, b"x"])
    rows = [
        [],
        [guid_header(UUID(int=1)), guid_header(GUID)],
        [guid_header(GUID)],
        [("__value_schema_id", b"\0\0\0\0\3"), ("__value_schema_id", None)],
        [("__value_schema_id", b"\0\0\0\0\3"), ("__key_schema_id", b"?")],
        [],
    ]
    views = pa.list_(pa.struct([("key", pa.large_string()), ("value", pa.large_binary())]))
    for type_ in (HEADERS, views, pa.map_(pa.string(), pa.binary())):
        column = headers(rows, type_)
        for start in range(len(rows)):
            decoded = AvroDecoder(schemas, json.dumps(LONG)).decode(values.slice(start), column.slice(start))
            assert decoded.batch.column(0).to_pylist() == [
                number for part in [[1], [2], [], [2], [2], []][start:] for number in part
            ]
            assert [error.row for error in decoded.errors] == [len(rows) - 1 - start]
            found = AvroValidator(schemas).validate(values.slice(start), column.slice(start))
            assert [error.row for error in found.errors] == [len(rows) - 1 - start]
    halves = pa.chunked_array([headers(rows[:2]), headers(rows[2:])])
    assert AvroDecoder(schemas, json.dumps(LONG)).decode(values, halves).batch.num_rows == 4
    nobodys = headers([None] * len(values))
    assert len(AvroDecoder(schemas, json.dumps(LONG)).decode(values, nobodys).errors) == 4
    with pytest.raises(TypeError, match="headers are lists of structs"):
        AvroDecoder(schemas).decode(values, pa.array([1] * len(values)))
    with pytest.raises(ValueError, match="1 rows of headers are not for 6 values"):
        AvroDecoder(schemas).decode(values, headers([[]]))


def test_keys_have_a_header_of_their_own() -> None:
    decoder = AvroDecoder({GUID: '"long"'})
    column = headers([[guid_header(GUID, "__key_schema_id"), guid_header(UUID(int=2))]])
    assert decoder.decode(pa.array([b"\2"]), column, field="key").batch.to_pylist() == [{"value": 1}]
    assert decoder.decode(pa.array([b"\2"]), column).errors[0].schema_id == UUID(int=2)


def test_headers_that_name_no_schema() -> None:
    contents = [b"", b"\1", b"\2\0\0\0\3", b"\0\xff\xff\xff\xff", b"\1" + bytes(17), b"\0\0\0\0\x09", b"\1" + bytes(16)]
    column = headers([[("__value_schema_id", content)] for content in contents])
    decoded = AvroDecoder({1: '"long"'}).decode(pa.array([b"\2"] * len(contents)), column)
    assert [error.row for error in decoded.errors] == list(range(len(contents)))
    for error in decoded.errors[:5]:
        assert "the header names no schema" in error.reason
        assert error.schema_id is None
    assert decoded.errors[5].reason == "schema 9 is not known"
    assert decoded.errors[6].reason == f"schema {UUID(int=0)} is not known"


def test_numbers_of_guids_are_no_ids_of_prefixes() -> None:
    decoder = AvroDecoder({GUID: '"long"'})
    assert decoder.decode(pa.array([b"\2"]), headers([[guid_header(GUID)]])).errors == []
    values = pa.array([b"\2", b"\0\xff\xff\xff\xff\2", b"\2", b"\0\x80\0\0\0\2"])
    column = headers([[guid_header(GUID)], [], [guid_header(GUID)], []])
    decoded = decoder.decode(values, column)
    assert decoded.batch.column(0).to_pylist() == [1, 1]
    assert [error.reason for error in decoded.errors] == ["no schema has the id -1", f"no schema has the id {-(2**31)}"]


def test_guids_that_strangers_make_up_are_bounded() -> None:
    class Registry:
        asked = 0

        def schema(self, schema_id: int) -> ParsedSchema:
            raise AssertionError(schema_id)

        def schema_by_guid(self, guid: UUID) -> ParsedSchema:
            self.asked += 1
            if guid == GUID:
                return parse("AVRO", '"long"')
            raise RegistryError(40403, 404, "Schema not found")

    registry, chance = Registry(), random.Random(1)
    decoder = AvroDecoder(registry)
    for turn in range(40):
        made_up = [guid_header(UUID(int=chance.getrandbits(128))) for _ in range(60)]
        column = headers([[guid_header(GUID)], *([one] for one in made_up), [guid_header(GUID)]])
        decoded = decoder.decode(pa.array([b"\2"] * 62), column)
        assert decoded.batch.column(0).to_pylist() == [1, 1]
        assert [error.row for error in decoded.errors] == list(range(1, 61)), turn
        assert len(decoder._names._contents) < NAMES_MAX + 62
        assert len(decoder._unknown) < NAMES_MAX + 62
    assert registry.asked < 40 * 60 + 10
    many = [[guid_header(UUID(int=chance.getrandbits(128)))] for _ in range(FAILED_LOOKUPS_MAX + 1)]
    with pytest.raises(TooManyUnknownIdsError):
        decoder.decode(pa.array([b"\2"] * len(many)), headers(many))


def test_many_rows_of_several_guids() -> None:
    guids = [UUID(int=number) for number in range(1, 6)]
    schemas: dict[int | UUID, str] = {
        guid: json.dumps(record("R", ["long", *["string"] * number])) for number, guid in enumerate(guids)
    }
    chance = random.Random(2)
    picks = [chance.randrange(5) for _ in range(5_000)]
    values = [written("long", row) + b"\2x" * pick for row, pick in enumerate(picks)]
    column = headers([[guid_header(guids[pick])] for pick in picks])
    decoded = AvroDecoder(schemas, json.dumps(LONG)).decode(pa.array(values), column)
    assert decoded.batch.column(0).to_pylist() == list(range(5_000))
