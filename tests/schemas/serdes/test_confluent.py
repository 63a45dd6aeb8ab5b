"""Values that confluent-kafka's serializers wrote, read by ours; and those of ours, read by theirs; on our registry."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import DeserializingConsumer, SerializingProducer
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient, header_schema_id_serializer
from confluent_kafka.schema_registry.avro import AvroDeserializer as TheirAvroDeserializer
from confluent_kafka.schema_registry.avro import AvroSerializer as TheirAvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer as TheirProtobufDeserializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer as TheirProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext, StringSerializer
from tests.support import flight_messages

from millstream.schemas import (
    AvroDeserializer,
    AvroSerializer,
    JsonDeserializer,
    JsonSerializer,
    ProtobufDeserializer,
    ProtobufSerializer,
    Reference,
    RegistryClient,
    SchemaType,
    parse,
)

NewName = Callable[[], str]

AVRO = json.dumps(
    {
        "type": "record",
        "name": "Flight",
        "namespace": "air",
        "doc": "One departure.",
        "fields": [
            {"name": "carrier", "type": "string"},
            {"name": "delay", "type": ["null", "int"], "default": None},
            {"name": "legs", "type": {"type": "array", "items": "string"}, "default": []},
        ],
    }
)
JSON = json.dumps(
    {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Flight",
        "type": "object",
        "properties": {"carrier": {"type": "string"}, "delay": {"type": ["null", "integer"]}},
    }
)
FLIGHTS: list[dict[str, Any]] = [
    {"carrier": "United", "delay": None, "legs": []},
    {"carrier": "AA", "delay": -4, "legs": ["ORD", "SFO"]},
]


@pytest.fixture
def theirs(registry_url: str) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": registry_url, "max.retries": 1, "timeout": 60}) as client:
        yield client


def context(topic: str, field: str = "value", headers: Any = None) -> SerializationContext:
    return SerializationContext(topic, MessageField(field), headers)


@pytest.mark.parametrize("field", ["key", "value"])
@pytest.mark.parametrize("place", ["prefix", "header"])
def test_avro_both_ways(
    real_registry: RegistryClient, theirs: SchemaRegistryClient, new_name: NewName, field: str, place: str
) -> None:
    topic = new_name()
    settings = {"schema.id.serializer": header_schema_id_serializer} if place == "header" else {}
    write_theirs = TheirAvroSerializer(theirs, AVRO, conf=settings)
    read_theirs = TheirAvroDeserializer(theirs)
    write_ours = AvroSerializer(real_registry, AVRO, id_in=place)
    read_ours = AvroDeserializer(real_registry)
    for value in FLIGHTS:
        written: list[tuple[bytes | None, list[Any]]] = []
        for write in (write_theirs, write_ours):
            headers: list[Any] = []
            written.append((write(value, context(topic, field, headers)), headers))
        assert written[0] == written[1]
        for data, headers in written:
            assert bool(headers) is (place == "header")
            assert read_ours(data, context(topic, field, headers)) == value
            assert read_theirs(data, context(topic, field, headers)) == value
    assert real_registry.versions(f"{topic}-{field}") == [1]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ('"string"', "x"),
        ('"bytes"', b"\x00\x01"),
        ('"long"', 2**40),
        ('["null", "string"]', "x"),
        ('{"type": "map", "values": "int"}', {"a": 1}),
    ],
)
def test_avro_that_is_no_record(
    real_registry: RegistryClient, theirs: SchemaRegistryClient, new_name: NewName, schema: str, value: Any
) -> None:
    topic = new_name()
    ours = AvroSerializer(real_registry, schema)(value, context(topic))
    assert ours == TheirAvroSerializer(theirs, schema)(value, context(topic))
    assert AvroDeserializer(real_registry)(ours) == value
    assert TheirAvroDeserializer(theirs)(ours, context(topic)) == value


def test_avro_with_references(real_registry: RegistryClient, theirs: SchemaRegistryClient, new_name: NewName) -> None:
    topic = new_name()
    theirs.register_schema(f"{topic}-flight", Schema(AVRO))
    leg = json.dumps({"type": "record", "name": "air.Leg", "fields": [{"name": "of", "type": "Flight"}]})
    name, subject = "air.Flight", f"{topic}-flight"
    their_schema = Schema(leg, "AVRO", [SchemaReference(name, subject, 1)])
    our_schema = parse(SchemaType.AVRO, leg, [Reference(name, subject, 1)], {name: AVRO})
    value = {"of": FLIGHTS[1]}
    data = TheirAvroSerializer(theirs, their_schema)(value, context(topic))
    assert AvroSerializer(real_registry, our_schema)(value, context(topic)) == data
    assert AvroDeserializer(real_registry)(data) == value
    assert TheirAvroDeserializer(theirs)(data, context(topic)) == value


def test_the_latest_version_is_used(
    real_registry: RegistryClient, theirs: SchemaRegistryClient, new_name: NewName
) -> None:
    topic = new_name()
    theirs.register_schema(f"{topic}-value", Schema(AVRO))
    wider: dict[str, Any] = json.loads(AVRO)
    wider["fields"].append({"name": "gate", "type": "string", "default": "?"})
    wider_id = real_registry.register(f"{topic}-value", json.dumps(wider))
    value = {**FLIGHTS[0], "gate": "B2"}
    ours = AvroSerializer(real_registry, use_latest_version=True)(value, context(topic))
    conf = {"use.latest.version": True, "auto.register.schemas": False}
    assert TheirAvroSerializer(theirs, AVRO, conf=conf)(value, context(topic)) == ours
    assert (ours or b"")[1:5] == wider_id.to_bytes(4, "big")
    old = AvroSerializer(real_registry, AVRO, auto_register=False)(FLIGHTS[0], context(topic))
    read_ours = AvroDeserializer(real_registry, use_latest_version=True)
    read_theirs = TheirAvroDeserializer(theirs, conf={"use.latest.version": True})
    assert read_ours(old, context(topic)) == read_theirs(old, context(topic)) == {**FLIGHTS[0], "gate": "?"}


@pytest.mark.parametrize("place", ["prefix", "header"])
def test_json_both_ways(
    real_registry: RegistryClient, theirs: SchemaRegistryClient, new_name: NewName, place: str
) -> None:
    topic = new_name()
    settings = {"schema.id.serializer": header_schema_id_serializer} if place == "header" else {}
    write_theirs = JSONSerializer(JSON, theirs, conf=settings)
    read_theirs = JSONDeserializer(None, schema_registry_client=theirs)
    write_ours = JsonSerializer(real_registry, JSON, id_in=place)
    read_ours = JsonDeserializer(real_registry)
    for value in FLIGHTS:
        for write in (write_theirs, write_ours):
            headers: list[Any] = []
            data = write(value, context(topic, "value", headers))
            assert read_ours(data, context(topic, "value", headers)) == value
            assert read_theirs(data, context(topic, "value", headers)) == value
    assert real_registry.versions(f"{topic}-value") == [1]


@pytest.mark.parametrize("place", ["prefix", "header"])
@pytest.mark.parametrize("name", ["air.Airport", "air.Flight", "air.Flight.Leg", "air.Flight.Leg.Seat"])
def test_protobuf_both_ways(
    registry_url: str,
    real_registry: RegistryClient,
    theirs: SchemaRegistryClient,
    new_name: NewName,
    name: str,
    place: str,
) -> None:
    topic = new_name()
    kind = flight_messages.message_class(name)
    value = flight_messages.flight("UA", 3) if name == "air.Flight" else kind()
    settings: dict[str, Any] = {"schema.id.serializer": header_schema_id_serializer} if place == "header" else {}
    write_theirs = TheirProtobufSerializer(kind, theirs, conf={"use.deprecated.format": False, **settings})
    # A client of its own, as a reader has: theirs takes the text that registering answers for what it asks for to read.
    reader = SchemaRegistryClient({"url": registry_url, "timeout": 60})
    read_theirs = TheirProtobufDeserializer(kind, {"use.deprecated.format": False}, reader)
    write_ours = ProtobufSerializer(real_registry, id_in=place)
    read_class, read_any = ProtobufDeserializer(real_registry, kind), ProtobufDeserializer(real_registry)
    written: list[tuple[bytes | None, list[Any]]] = []
    for write in (write_theirs, write_ours):
        headers: list[Any] = []
        written.append((write(value, context(topic, "value", headers)), headers))
    assert written[0] == written[1]
    for data, headers in written:
        assert read_class(data, context(topic, "value", headers)) == value
        assert read_theirs(data, context(topic, "value", headers)) == value
        found = read_any(data, context(topic, "value", headers))
        assert found.DESCRIPTOR.full_name == name
        assert found.SerializeToString() == value.SerializeToString()
        if name == "air.Flight":
            assert [leg.to.code for leg in found.legs] == ["ORD", "SFO"]
            assert found.airline.code == "UA"
    reader.close()
    assert real_registry.versions(f"{topic}-value") == [1]
    assert real_registry.latest("air/airline.proto").schema.type is SchemaType.PROTOBUF


def test_their_producer_and_consumer_take_ours(
    millstream_broker_session: Any, real_registry: RegistryClient, new_name: NewName
) -> None:
    topic = new_name()
    bootstrap = {"bootstrap.servers": millstream_broker_session.bootstrap_servers}
    producer = SerializingProducer(
        {**bootstrap, "key.serializer": StringSerializer(), "value.serializer": AvroSerializer(real_registry, AVRO)}
    )
    for value in FLIGHTS:
        producer.produce(topic, key=value["carrier"], value=value)
    assert producer.flush(60) == 0
    consumer = DeserializingConsumer(
        {
            **bootstrap,
            "group.id": topic,
            "auto.offset.reset": "earliest",
            "value.deserializer": AvroDeserializer(real_registry),
        }
    )
    try:
        consumer.subscribe([topic])
        found: list[Any] = []
        for _ in range(90):
            message = consumer.poll(1)
            if message is not None:
                assert message.error() is None, message.error()
                found.append(message.value())
            if len(found) == len(FLIGHTS):
                break
    finally:
        consumer.close()
    assert sorted(found, key=str) == sorted(FLIGHTS, key=str)
