"""Serdes with the clients they are for: kafka-python's hooks, our Producer and Consumer, blocking and awaited."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import kafka
import pytest
from tests.support import flight_messages

from millstream import Admin, Consumer, Producer, aio
from millstream.schemas import (
    AsyncAvroDeserializer,
    AsyncAvroSerializer,
    AsyncProtobufDeserializer,
    AsyncProtobufSerializer,
    AsyncRegistryClient,
    AvroDeserializer,
    AvroSerializer,
    DeserializationError,
    JsonDeserializer,
    JsonSerializer,
    ProtobufDeserializer,
    ProtobufSerializer,
    RegistryClient,
)

NewName = Callable[[], str]

AVRO = json.dumps(
    {
        "type": "record",
        "name": "Flight",
        "fields": [{"name": "carrier", "type": "string"}, {"name": "delay", "type": "int"}],
    }
)
FLIGHTS = [{"carrier": "UA", "delay": 2}, {"carrier": "AA", "delay": -3}]
JSON = '{"type": "object", "required": ["carrier"]}'


@pytest.fixture
def bootstrap(millstream_broker_session: Any) -> str:
    return str(millstream_broker_session.bootstrap_servers)


@pytest.mark.parametrize("kind", ["avro", "json", "protobuf"])
@pytest.mark.parametrize("place", ["prefix", "header"])
def test_kafka_python(bootstrap: str, real_registry: RegistryClient, new_name: NewName, kind: str, place: str) -> None:
    topic = new_name()
    make: dict[str, tuple[Callable[..., Any], Any, Any]] = {
        "avro": (AvroSerializer, AVRO, AvroDeserializer(real_registry)),
        "json": (JsonSerializer, JSON, JsonDeserializer(real_registry)),
        "protobuf": (ProtobufSerializer, None, ProtobufDeserializer(real_registry)),
    }
    serializer, schema, deserializer = make[kind]
    arguments = [real_registry] if schema is None else [real_registry, schema]
    values: list[Any] = [flight_messages.flight("UA", 2)] if kind == "protobuf" else FLIGHTS
    producer = kafka.KafkaProducer(
        bootstrap_servers=bootstrap,
        key_serializer=AvroSerializer(real_registry, '"string"', field="key"),
        value_serializer=serializer(*arguments, id_in=place),
    )
    for value in values:
        producer.send(topic, value, key="k").get(60)
    producer.close()
    assert sorted(real_registry.subjects(topic)) == [f"{topic}-key", f"{topic}-value"]
    consumer = kafka.KafkaConsumer(
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        key_deserializer=AvroDeserializer(real_registry, field="key"),
        value_deserializer=deserializer,
        consumer_timeout_ms=60_000,
    )
    consumer.assign([kafka.TopicPartition(topic, 0)])
    found = [next(consumer) for _ in values]
    consumer.close()
    if kind == "protobuf":
        assert [one.value.SerializeToString() for one in found] == [value.SerializeToString() for value in values]
    else:
        assert [one.value for one in found] == values
    assert {one.key for one in found} == {"k"}
    assert [bool(one.headers) for one in found] == [place == "header"] * len(values)


def test_our_clients(bootstrap: str, real_registry: RegistryClient, new_name: NewName) -> None:
    topic = new_name()
    key, value = AvroSerializer(real_registry, '"string"', field="key"), AvroSerializer(real_registry, AVRO)
    with Admin(bootstrap) as admin:
        admin.create_topic(topic, partitions=1)
    with Producer(bootstrap) as producer:
        for flight in FLIGHTS:
            producer.send(topic, value(flight, topic=topic), key=key(flight["carrier"], topic=topic))
        producer.send(topic, b"none of ours", key=key("XX", topic=topic))
        producer.send(topic, value(None, topic=topic), key=key("XX", topic=topic)).result(60)
    read_key, read_value = AvroDeserializer(real_registry, field="key"), AvroDeserializer(real_registry)
    found: list[Any] = []
    with Consumer(bootstrap, group_id=topic, auto_offset_reset="earliest") as consumer:
        consumer.subscribe([topic])
        for record in consumer:
            read: Any
            try:
                read = read_value(record.value, topic=record.topic, headers=record.headers)
            except DeserializationError as error:
                read = str(error)
            found.append((read_key(record.key), read))
            if len(found) == 4:
                break
    assert found[:2] == [("UA", FLIGHTS[0]), ("AA", FLIGHTS[1])]
    assert found[2][1].startswith(f"value of topic '{topic}': the first byte is 0x6e")
    assert found[3] == ("XX", None)


async def test_our_clients_awaited(bootstrap: str, registry_url: str, new_name: NewName) -> None:
    topic = new_name()
    async with AsyncRegistryClient(registry_url) as registry, aio.Producer(bootstrap) as producer:
        for serializer, value in (
            (AsyncAvroSerializer(registry, AVRO, id_in="header", strategy="topic_record"), FLIGHTS[0]),
            (
                AsyncProtobufSerializer(registry, id_in="header", strategy="topic_record"),
                flight_messages.flight("UA", 1),
            ),
        ):
            headers: list[tuple[str, bytes]] = []
            data = await serializer(value, topic=topic, headers=headers)
            await (await producer.send_soon(topic, data, headers=headers))
        async with aio.Consumer(bootstrap, group_id=topic, auto_offset_reset="earliest") as consumer:
            consumer.subscribe([topic])
            records: list[Any] = []
            while len(records) < 2:
                records += await consumer.poll_records(60)
        avro, protobuf = sorted(records, key=lambda record: record.offset)
        found = await AsyncAvroDeserializer(registry)(avro.value, headers=avro.headers)
        assert found == FLIGHTS[0]
        message = await AsyncProtobufDeserializer(registry)(protobuf.value, headers=protobuf.headers)
        assert message.airline.code == "UA"


def test_nobody_pays_for_what_he_does_not_use() -> None:
    heavy = ("pyarrow", "fastavro", "jsonschema", "google.protobuf", "httpx2", "kafka", "starlette")
    program = (
        "import sys; from millstream.schemas import AvroSerializer, JsonSerializer, ProtobufSerializer, RegistryClient;"
        f"RegistryClient('http://127.0.0.1:1'); print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "[]\n"
