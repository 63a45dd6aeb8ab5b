"""Schemas that headers name, as serializers write them: values and keys of every format, beside those with prefixes."""

from __future__ import annotations

import itertools
import uuid
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass
from tests.support.fake_registry import Answer, FakeRegistry
from tests.support.loads import SCHEMA_1, SCHEMA_2
from tests.support.split_runs import Outcome, Record, SplitTopic

from millstream.hadoop_loader.job import ValueSettings
from millstream.hadoop_loader.running import TopicUnreadableError
from millstream.hadoop_loader.tables import TableVersion, merge
from millstream.hadoop_loader.tables.writers import writer_number
from millstream.schemas.client import RegistryClient
from millstream.schemas.parsing import SchemaType, parse
from millstream.schemas.protobuf.layout import descriptor_of
from millstream.schemas.serdes import AvroSerializer, JsonSerializer, ProtobufSerializer
from millstream.testing import TestBroker

_numbers = itertools.count()
GUID_HEADER = "__value_schema_id"
UNKNOWN = uuid.UUID(int=7)
JSON_TEXT = '{"type": "object", "properties": {"id": {"type": "integer"}, "user": {"type": "string"}}}'
PROTOBUF_TEXT = """syntax = "proto3";
message Event { int64 id = 1; string user = 2; }
message Other { string user = 1; int64 id = 2; }"""


@pytest.fixture
def topic(millstream_broker_session: TestBroker, tmp_path: Path) -> SplitTopic:
    return SplitTopic(millstream_broker_session.bootstrap_servers, f"header-ids-{next(_numbers)}", tmp_path)


def serialized(serializer: Any, value: Any, topic: SplitTopic, **record: Any) -> Record:
    headers: list[tuple[str, bytes | None]] = [("trace", b"1"), (GUID_HEADER, b"copied from elsewhere")]
    content = serializer(value, topic=topic.name, headers=headers)
    return Record(content, headers=headers, **record)


def rows_of(done: Outcome) -> list[tuple[Any, ...]]:
    avro, parquet = (
        [(row["id"], row["user"], row["_kafka_schema_id"]) for _, row in done.rows(name)]
        for name in ("avro", "parquet")
    )
    assert avro == parquet
    return avro


def test_avro_named_by_headers_stands_beside_prefixes(topic: SplitTopic) -> None:
    row = {"id": 1, "user": "ann", "amount": None}
    with FakeRegistry() as fake, RegistryClient(fake.url) as registry:
        old, new, plain = (
            AvroSerializer(registry, schema, id_in=place)
            for schema, place in ((SCHEMA_1, "header"), (SCHEMA_2, "header"), (SCHEMA_2, "prefix"))
        )
        # A zero at its begin: it looks like a prefix, and is none.
        zero = {"id": 0, "user": "\0\0\0\2", "amount": None, "country": "CH"}
        topic.send(
            [
                serialized(old, row, topic),
                serialized(new, zero, topic),
                Record(plain({**row, "id": 2, "country": "DE"}, topic=topic.name), headers=[("trace", b"1")]),
                Record(b"\2", headers=[(GUID_HEADER, b"\1" + UNKNOWN.bytes)]),
                Record(b"\2", headers=[(GUID_HEADER, b"what?")]),
                Record(None, headers=[(GUID_HEADER, b"what?")]),
                Record(new({**row, "id": 3, "country": "FR"}, topic=topic.name, headers=[]), headers=[]),
                Record(b"\2", headers=[(GUID_HEADER, b"\0\0\0\0\1")]),
            ]
        )
        table = merge(None, {1: SCHEMA_1, 2: SCHEMA_2}, topic=topic.name).version
        job = topic.job(metadata_columns=("schema_id",))
        done = topic.run(job, table, registry=registry)

        assert fake.asked().count(f"/schemas/guids/{fake.schemas[1]['guid']}/ids") == 1
        assert not [path for path in fake.asked() if path.endswith("/schemas/ids/1")]

    rows = rows_of(done)
    assert sorted(rows, key=str) == sorted(
        [(1, "ann", 1), (0, "\0\0\0\2", 2), (2, "ann", 2), (None, None, None)], key=str
    )
    letters = {letter["offset"]: letter for letter in done.dead_letters()}
    assert {offset: letter["error"].partition(":")[0] for offset, letter in letters.items()} == {
        3: f"schema {UNKNOWN} is not known",
        4: "its header __value_schema_id names no schema",
        6: "the value does not begin with a zero byte and a schema id (byte 0 of the value)",
        7: "user",
    }
    assert [letters[offset]["schema_id"] for offset in sorted(letters)] == [None, None, None, 1]
    assert letters[7]["value"] == b"\2", "kept as it came"
    assert {one["key"]: one["value"] for one in letters[3]["headers"]} == {GUID_HEADER: b"\1" + UNKNOWN.bytes}


def test_a_schema_met_in_a_header_is_told(topic: SplitTopic) -> None:
    with FakeRegistry() as fake, RegistryClient(fake.url) as registry:
        serializer = AvroSerializer(registry, SCHEMA_1, id_in="header")
        topic.send([serialized(serializer, {"id": 1, "user": "ann", "amount": None}, topic)])
        done = topic.run(topic.job(), TableVersion(topic.name, topic.name), registry=registry)
        assert [(one.topic, one.schema_id) for one in done.result.unknown_schemas] == [(topic.name, 1)]
        fake.script = lambda request: (
            Answer(403, {"error_code": 403, "message": "no"}) if "guids" in request.path else None
        )
        with pytest.raises(TopicUnreadableError, match=r"does not say what schema .* is: no"):
            topic.run(topic.job(), TableVersion(topic.name, topic.name), registry=registry)


@pytest.mark.parametrize("format_", ["json", "protobuf"])
def test_other_formats_are_named_by_headers_too(format_: str, topic: SplitTopic) -> None:
    text = JSON_TEXT if format_ == "json" else PROTOBUF_TEXT
    schema = parse(SchemaType(format_.upper()), text)
    with FakeRegistry() as fake, RegistryClient(fake.url) as registry:
        rows = [{"id": number, "user": f"user-{number}"} for number in range(4)]
        values: list[Any] = rows
        if format_ == "json":
            serializers: list[Any] = [JsonSerializer(registry, schema, id_in=place) for place in ("header", "prefix")]
        else:
            serializers = [ProtobufSerializer(registry, id_in=place) for place in ("header", "prefix")]
            kinds = [GetMessageClass(descriptor_of(schema, name)) for name in ("Event", "Other")]
            values = [json_format.ParseDict(row, kinds[row["id"] == 2]()) for row in rows]
        records = [serialized(serializers[0], values[number], topic) for number in (0, 2, 3)]
        records.insert(1, Record(serializers[1](values[1], topic=topic.name)))
        topic.send([*records, Record(b"{", headers=[(GUID_HEADER, b"\0\0\0\0\1\2\2")])])
        # Of Protobuf the second message is a writer by itself, whose table is another.
        numbers = {1} if format_ == "json" else {writer_number(1), writer_number(1, (1,))}
        table = merge(None, dict.fromkeys(numbers, registry.schema(1)), topic=topic.name).version
        job = topic.job(value=ValueSettings(format=format_), metadata_columns=("schema_id",))
        done = topic.run(job, table, registry=registry)

    assert sorted(rows_of(done)) == [(row["id"], row["user"], 1) for row in rows]
    (letter,) = done.dead_letters()
    assert letter["offset"] == 4


def test_keys_are_named_by_their_own_header(topic: SplitTopic) -> None:
    with FakeRegistry() as fake, RegistryClient(fake.url) as registry:
        serializer = AvroSerializer(registry, '"long"', field="key", id_in="header")
        headers: list[tuple[str, bytes | None]] = []
        key = serializer(7, topic=topic.name, headers=headers)
        prefixed = b"\0\0\0\0\1\x10"
        topic.send(
            [
                Record(b"a", key=key, headers=headers),
                Record(b"b", key=prefixed, headers=[(GUID_HEADER, b"no business of a key's")]),
                Record(b"c", key=b"\2", headers=[("__key_schema_id", b"\1" + UNKNOWN.bytes)]),
                Record(b"d", headers=headers),
            ]
        )
        job = topic.job(value=ValueSettings(format="raw"), key=ValueSettings(format="avro", schema='"long"'))
        done = topic.run(job, TableVersion(topic.name, topic.name), registry=registry)

    for name in ("avro", "parquet"):
        assert [(row["value"], row["key"]) for _, row in done.rows(name)] == [(b"a", 7), (b"b", 8), (b"d", None)]
    assert [letter["error"] for letter in done.dead_letters()] == [f"its key: schema {UNKNOWN} is not known"]
