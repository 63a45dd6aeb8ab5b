"""Files of Protobuf with several messages: each that values name has a table of its own, and no field is lost."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass
from tests.support.fake_registry import FakeRegistry
from tests.support.split_runs import Outcome, Record, SplitTopic

from millstream.hadoop_loader.driver.schemas import RunSchemas
from millstream.hadoop_loader.job import LoadJob, ValueSettings
from millstream.hadoop_loader.tables import merge, table_version
from millstream.hadoop_loader.tables.writers import number_of, path_of, schema_id_of, writer_name, writer_number
from millstream.schemas.client import RegistryClient
from millstream.schemas.parsing import SchemaType, parse
from millstream.schemas.protobuf.layout import descriptor_of
from millstream.schemas.serdes import ProtobufSerializer
from millstream.testing import TestBroker

_numbers = itertools.count()
TEXT = """syntax = "proto3"; package shop;
message Address { string street = 1; }
message Customer { message Note { string text = 1; } int64 id = 1; Address home = 2; }"""
SCHEMA = parse(SchemaType.PROTOBUF, TEXT)


@pytest.fixture
def topic(millstream_broker_session: TestBroker, tmp_path: Path) -> SplitTopic:
    return SplitTopic(millstream_broker_session.bootstrap_servers, f"messages-{next(_numbers)}", tmp_path)


def load(
    topic: SplitTopic, values: list[tuple[str, Mapping[str, Any]]], documents: Mapping[str, Any], message: str | None
) -> tuple[Outcome, RunSchemas]:
    """Send messages, and run a split over the topic until its tables have their schemas, as the driver does."""
    with FakeRegistry() as fake, RegistryClient(fake.url) as registry:
        serializer = ProtobufSerializer(registry)
        made = [json_format.ParseDict(value, GetMessageClass(descriptor_of(SCHEMA, name))()) for name, value in values]
        topic.send([Record(serializer(one, topic=topic.name)) for one in made])
        job: LoadJob = topic.job(value=ValueSettings(format="protobuf", message=message))
        schemas = RunSchemas(job, documents, registry)
        schemas.prepare(topic.name)
        for _ in range(4):
            done = topic.run(job, schemas.tables[topic.name], registry=registry)
            if not done.result.unknown_schemas:
                return done, schemas
            assert schemas.learn(done.result.unknown_schemas) == {}
    raise AssertionError(done.result.unknown_schemas)


def tables_of(done: Outcome) -> dict[str, list[dict[str, Any]]]:
    """The rows of each table, which both formats have alike."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {"avro": {}, "parquet": {}}
    for name, tables in found.items():
        for file in done.files(name):
            tables.setdefault(file.table, []).extend(done.rows_of(file))
    assert found["avro"] == found["parquet"]
    return found["avro"]


@pytest.mark.parametrize(
    ("message", "value"),
    [("shop.Customer", {"id": 7, "home": {"street": "x"}}), ("shop.Customer.Note", {"text": "t"})],
)
def test_the_table_is_made_of_the_message_that_values_name(
    message: str, value: dict[str, Any], topic: SplitTopic
) -> None:
    done, _ = load(topic, [(message, value)] * 3, {}, None)

    assert tables_of(done) == {topic.name: [value] * 3}
    assert done.result.rows == 3


def test_two_messages_in_one_topic_have_two_tables(topic: SplitTopic) -> None:
    customer, address = {"id": 7, "home": {"street": "x"}}, {"street": "y"}
    values: list[tuple[str, Mapping[str, Any]]] = [("shop.Customer", customer), ("shop.Address", address)]
    values.append(values[0])

    done, schemas = load(topic, values, {}, None)

    tables = tables_of(done)
    assert sorted(tables.values(), key=len) == [[address], [customer, customer]]
    assert sorted(tables) == [topic.name, f"{topic.name}.v2"]
    document = schemas.changed[topic.name]
    assert sorted(document["writers"]) == ["1", "1:1"]
    assert document["writers"]["1:1"]["message"] == "shop.Customer"
    assert table_version(document, topic.name) == schemas.tables[topic.name]


def test_a_table_made_of_the_first_message_takes_no_other(topic: SplitTopic) -> None:
    before = merge(None, {1: SCHEMA}, topic=topic.name).document

    done, _ = load(topic, [("shop.Customer", {"id": 7})], {topic.name: before}, None)

    assert tables_of(done) == {f"{topic.name}.v2": [{"id": 7, "home": None}]}


@pytest.mark.parametrize("message", ["Customer", "shop.Customer"])
def test_a_job_may_want_one_message_alone(message: str, topic: SplitTopic) -> None:
    done, schemas = load(topic, [("shop.Address", {"street": "y"}), ("shop.Customer", {"id": 7})], {}, message)

    assert tables_of(done) == {topic.name: [{"id": 7, "home": None}]}
    (letter,) = done.dead_letters()
    assert letter["offset"] == 0
    assert letter["error"] == f"it is a shop.Address, and the job reads {message} (value.message)"
    assert list(schemas.changed[topic.name]["writers"]) == ["1:1"]


@pytest.mark.parametrize("path", [(0,), (1,), (1, 0), (0, 0), (300, 2, 0)])
def test_a_writer_s_number_says_which_message_it_is(path: tuple[int, ...]) -> None:
    for schema_id in (1, 2**31 - 1):
        number = writer_number(schema_id, path)
        assert (schema_id_of(number), path_of(number)) == (schema_id, path)
        assert number_of(writer_name(number)) == number
    assert writer_number(5) == 5
    assert writer_name(writer_number(5, (1, 0))) == "5:1.0"
