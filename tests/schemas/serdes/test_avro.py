"""Avro values through a registry: what is asked of it, and what goes wrong with single values."""

from __future__ import annotations

import json
import pickle
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.fake_registry import Answer, FakeRegistry

from millstream.schemas import (
    AsyncAvroDeserializer,
    AsyncAvroSerializer,
    AsyncRegistryClient,
    AvroDeserializer,
    AvroSerializer,
    DeserializationError,
    Reference,
    RegistryClient,
    RegistryError,
    SchemaType,
    SerializationError,
    parse,
)

FLIGHT = json.dumps(
    {
        "type": "record",
        "name": "Flight",
        "namespace": "air",
        "fields": [
            {"name": "carrier", "type": "string"},
            {"name": "delay", "type": ["null", "int"], "default": None},
        ],
    }
)
UA = {"carrier": "UA", "delay": 2}


def test_a_value_comes_back_and_the_registry_is_asked_once(fake: FakeRegistry, registry: RegistryClient) -> None:
    serializer = AvroSerializer(registry, FLIGHT)
    data = serializer(UA, topic="flights")
    assert data == b"\x00\x00\x00\x00\x01\x04UA\x02\x04"
    assert list(fake.subjects) == ["flights-value"]
    deserializer = AvroDeserializer(registry)
    for _ in range(10):
        assert serializer(UA, topic="flights") == data
        assert deserializer(data) == UA
    assert len(fake.requests) == 2
    assert serializer(None, topic="flights") is None
    assert deserializer(None) is None


def test_logical_types_are_pythons(registry: RegistryClient) -> None:
    fields = [
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "paid", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
    ]
    schema = json.dumps({"type": "record", "name": "Paid", "fields": fields})
    value = {"at": datetime(2026, 3, 1, tzinfo=UTC), "paid": Decimal("12.30"), "id": uuid.UUID(int=5)}
    data = AvroSerializer(registry, schema)(value, topic="t")
    assert AvroDeserializer(registry)(data) == value


@pytest.mark.parametrize(
    ("strategy", "subject"),
    [
        ("topic", "flights-value"),
        ("record", "air.Flight"),
        ("topic_record", "flights-air.Flight"),
        (lambda topic, field, name: f"{field} of {topic}", "value of flights"),
    ],
)
def test_strategies_name_subjects(fake: FakeRegistry, registry: RegistryClient, strategy: Any, subject: str) -> None:
    AvroSerializer(registry, FLIGHT, strategy=strategy)(UA, topic="flights")
    assert list(fake.subjects) == [subject]


def test_what_a_strategy_lacks_is_said(registry: RegistryClient) -> None:
    with pytest.raises(SerializationError, match="the record's topic, and there is none: give topic="):
        AvroSerializer(registry, FLIGHT)(UA)
    with pytest.raises(SerializationError, match="the record's name, and there is none"):
        AvroSerializer(registry, '"string"', strategy="record")("x", topic="t")
    with pytest.raises(ValueError, match="'topics' is no subject name strategy: topic, record, topic_record"):
        AvroSerializer(registry, FLIGHT, strategy="topics")


def test_keys_have_subjects_of_their_own(fake: FakeRegistry, registry: RegistryClient) -> None:
    by_maker = AvroSerializer(registry, '"string"', field="key")
    by_call = AvroSerializer(registry, '"string"')
    assert by_maker("a", topic="t") == by_call("a", topic="t", field="key")
    assert list(fake.subjects) == ["t-key"]
    with pytest.raises(ValueError, match="'body' is no field of a record"):
        by_call("a", topic="t", field="body")


def test_nothing_is_registered_unless_it_may_be(fake: FakeRegistry, registry: RegistryClient) -> None:
    serializer = AvroSerializer(registry, FLIGHT, auto_register=False)
    with pytest.raises(SerializationError, match=r"value of topic 'flights': Subject 'flights-value' not found"):
        serializer(UA, topic="flights")
    schema_id = registry.register("flights-value", FLIGHT)
    assert serializer(UA, topic="flights") == b"\x00\x00\x00\x00\x01\x04UA\x02\x04"
    assert AvroSerializer(registry, schema_id=schema_id)(UA, topic="x") == serializer(UA, topic="flights")
    assert list(fake.subjects) == ["flights-value"]


def test_the_latest_version_is_asked_for_again_after_its_time(fake: FakeRegistry, registry: RegistryClient) -> None:
    now = [0.0]
    settings: dict[str, Any] = {"use_latest_version": True, "latest_ttl_s": 60, "clock": lambda: now[0]}
    registry.register("t-value", FLIGHT)
    wider = FLIGHT.replace("Flight", "Flight2")
    serializer, deserializer = AvroSerializer(registry, **settings), AvroDeserializer(registry, **settings)
    assert serializer(UA, topic="t") == b"\x00\x00\x00\x00\x01\x04UA\x02\x04"
    registry.register("t-value", wider)
    now[0] = 59
    assert (serializer(UA, topic="t") or b"")[:5] == b"\x00\x00\x00\x00\x01"
    now[0] = 61
    assert (serializer(UA, topic="t") or b"")[:5] == b"\x00\x00\x00\x00\x02"
    assert deserializer(b"\x00\x00\x00\x00\x02\x04UA\x02\x04", topic="t") == UA
    # A registry that is away stops nobody who has what he needs.
    fake.script = lambda request: Answer(503, b"away")
    now[0] = 200
    assert (serializer(UA, topic="t") or b"")[:5] == b"\x00\x00\x00\x00\x02"
    assert deserializer(b"\x00\x00\x00\x00\x02\x04UA\x02\x04", topic="t") == UA
    with pytest.raises(RegistryError, match="HTTP 503: away") as caught:
        serializer(UA, topic="other")
    assert caught.value.is_outage


def test_a_reader_sees_what_it_wants(registry: RegistryClient) -> None:
    data = AvroSerializer(registry, FLIGHT)(UA, topic="t")
    wanted = {
        "type": "record",
        "name": "Flight",
        "namespace": "air",
        "fields": [
            {"name": "delay", "type": ["null", "long"]},
            {"name": "origin", "type": "string", "default": "?"},
        ],
    }
    assert AvroDeserializer(registry, json.dumps(wanted))(data) == {"delay": 2, "origin": "?"}
    wanted["fields"] = [{"name": "tail", "type": "string"}]
    with pytest.raises(DeserializationError, match=r"^value of topic 't', schema 1: .*tail"):
        AvroDeserializer(registry, json.dumps(wanted))(data, topic="t")


def test_what_is_referred_to_is_found(fake: FakeRegistry, registry: RegistryClient) -> None:
    registry.register("flight", FLIGHT)
    leg = json.dumps({"type": "record", "name": "air.Leg", "fields": [{"name": "flight", "type": "air.Flight"}]})
    schema = parse(SchemaType.AVRO, leg, [Reference("air.Flight", "flight", 1)], {"air.Flight": FLIGHT})
    data = AvroSerializer(registry, schema)({"flight": UA}, topic="legs")
    registry.forget()
    assert AvroDeserializer(registry)(data) == {"flight": UA}
    assert "/subjects/flight/versions/1" in fake.asked("GET")


def test_plain_bytes_stand_as_they_are(registry: RegistryClient) -> None:
    data = AvroSerializer(registry, '"bytes"')(b"\x01\x02", topic="t")
    assert data == b"\x00\x00\x00\x00\x01\x01\x02"
    assert AvroDeserializer(registry)(data) == b"\x01\x02"


def test_the_guid_goes_into_the_headers(fake: FakeRegistry, registry: RegistryClient) -> None:
    given: list[Any] = [[], {}]
    for headers in given:
        serializer = AvroSerializer(registry, FLIGHT, id_in="header")
        data = serializer(UA, topic="t", headers=headers)
        guid = uuid.UUID(fake.schemas[1]["guid"])
        assert data == b"\x04UA\x02\x04"
        assert dict(headers) == {"__value_schema_id": b"\x01" + guid.bytes}
        assert AvroDeserializer(registry)(data, headers=headers) == UA
    by_id = AvroSerializer(registry, schema_id=1, id_in="header")
    assert by_id(UA, topic="t", headers={}) == data
    with pytest.raises(SerializationError, match="there is no list of headers to add it to"):
        serializer(UA, topic="t")
    for schema in fake.schemas.values():
        schema["guid"] = None
    registry.forget()
    with pytest.raises(SerializationError, match="gives no GUID for schema 1"):
        AvroSerializer(registry, FLIGHT, id_in="header")(UA, topic="t", headers=[])


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"carrier": 5}, "must be string on field carrier"),
        ({"delay": 5}, "carrier"),
        ({"carrier": "UA", "delays": 5}, "more fields than the schema specifies: delays"),
        ({"carrier": "UA", "delay": "late"}, "'late' .* do not match .* on field delay"),
        ("UA", ""),
        (5, ""),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_place_and_reason(
    registry: RegistryClient, value: Any, complaint: str
) -> None:
    with pytest.raises(SerializationError, match=rf"^value of topic 't', schema 1: .*{complaint}") as caught:
        AvroSerializer(registry, FLIGHT)(value, topic="t")
    error = caught.value
    assert (error.topic, error.field, error.schema_id) == ("t", "value", 1)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_fields_too_many_may_be_left_out(registry: RegistryClient) -> None:
    serializer = AvroSerializer(registry, FLIGHT, strict=False)
    assert serializer({"carrier": "UA", "delay": 2, "gate": 7}, topic="t") == serializer(UA, topic="t")


def test_numbers_over_their_range_are_found_where_that_is_wanted(registry: RegistryClient) -> None:
    schema = json.dumps({"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]})
    with pytest.raises(SerializationError, match="1099511627776"):
        AvroSerializer(registry, schema, validate=True)({"a": 2**40}, topic="t")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "there are no bytes"),
        (b"not avro", "the first byte is 0x6e"),
        (b"\x00\x00\x00\x00\x07x", "schema 7: Schema not found"),
        (b"\x01" + bytes(16), "schema 00000000-0000-0000-0000-000000000000: Schema not found"),
        (b"\x00\x00\x00\x00\x01\x10UA", "schema 1: Expected 8 bytes, read 2"),
        (b"\x00\x00\x00\x00\x01\x04UA\x02\x04more", "schema 1: 4 bytes are left behind the value"),
        (b"\x00\x00\x00\x00\x01\x04\xff\xff\x00", "schema 1: 'utf-8' codec can't decode"),
        (b"\x00\x00\x00\x00\x01\x04UA\x06", "schema 1: list index out of range"),
    ],
)
def test_bytes_that_cannot_be_read_are_refused_with_place_and_reason(
    registry: RegistryClient, data: bytes, complaint: str
) -> None:
    registry.register("t-value", FLIGHT)
    with pytest.raises(DeserializationError, match=rf"^value of topic 't'.*{complaint}"):
        AvroDeserializer(registry)(data, topic="t")


def test_any_bytes_are_read_or_refused(registry: RegistryClient) -> None:
    registry.register("t-value", FLIGHT)
    deserializer = AvroDeserializer(registry)

    @settings(deadline=None)
    @given(st.binary(max_size=30))
    def read(data: bytes) -> None:
        try:
            value = deserializer(b"\x00\x00\x00\x00\x01" + data)
        except DeserializationError:
            return
        assert set(value) == {"carrier", "delay"}

    read()


def test_a_schema_of_another_type_is_refused(registry: RegistryClient) -> None:
    registry.register("t-value", parse(SchemaType.JSON, "{}"))
    with pytest.raises(DeserializationError, match="the schema is of type JSON, not AVRO"):
        AvroDeserializer(registry)(b"\x00\x00\x00\x00\x01{}")
    with pytest.raises(SerializationError, match="schema 1 is of type JSON, not AVRO"):
        AvroSerializer(registry, use_latest_version=True)(UA, topic="t")
    with pytest.raises(ValueError, match="type JSON is nothing for AvroSerializer"):
        AvroSerializer(registry, parse(SchemaType.JSON, "{}"))


@dataclass
class Flight:
    carrier: str
    delay: int | None = None


def test_values_may_be_objects(registry: RegistryClient) -> None:
    data = AvroSerializer(registry, FLIGHT, to_dict=asdict)(Flight("UA", 2), topic="t")
    assert AvroDeserializer(registry, from_dict=lambda found: Flight(**found))(data) == Flight("UA", 2)
    unfit: Any = {"nothing": 1}
    with pytest.raises(DeserializationError, match="unexpected keyword argument"):
        AvroDeserializer(registry, '"string"', from_dict=lambda found: Flight(**unfit))(
            AvroSerializer(registry, '"string"')("x", topic="s")
        )


def test_settings_that_exclude_each_other_are_refused(registry: RegistryClient) -> None:
    with pytest.raises(ValueError, match="use_latest_version and schema_id"):
        AvroSerializer(registry, use_latest_version=True, schema_id=1)
    with pytest.raises(ValueError, match="use_latest_version and reader_schema"):
        AvroDeserializer(registry, FLIGHT, use_latest_version=True)
    with pytest.raises(ValueError, match="'prefix' or 'header'"):
        AvroSerializer(registry, FLIGHT, id_in="suffix")


async def test_the_same_awaited(fake: FakeRegistry) -> None:
    async with AsyncRegistryClient(fake.url) as registry:
        serializer = AsyncAvroSerializer(registry, FLIGHT)
        deserializer = AsyncAvroDeserializer(registry)
        data = await serializer(UA, topic="t")
        assert await deserializer(data) == UA
        assert await serializer(None) is None
        assert await deserializer(None) is None
        with pytest.raises(SerializationError, match="must be string on field carrier"):
            await serializer({"carrier": 5}, topic="t")
        with pytest.raises(DeserializationError, match="schema 9: Schema not found"):
            await deserializer(b"\x00\x00\x00\x00\x09")
