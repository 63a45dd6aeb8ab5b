"""JSON values with a JSON Schema through a registry."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support.fake_registry import FakeRegistry

from millstream.schemas import (
    AsyncJsonDeserializer,
    AsyncJsonSerializer,
    AsyncRegistryClient,
    DeserializationError,
    JsonDeserializer,
    JsonSerializer,
    Reference,
    RegistryClient,
    SchemaType,
    SerializationError,
    parse,
)

FLIGHT = json.dumps(
    {
        "title": "Flight",
        "type": "object",
        "properties": {"carrier": {"type": "string"}, "delay": {"type": "integer", "minimum": 0}},
        "required": ["carrier"],
        "additionalProperties": False,
    }
)


def test_a_value_comes_back(fake: FakeRegistry, registry: RegistryClient) -> None:
    serializer = JsonSerializer(registry, FLIGHT, strategy="topic_record")
    data = serializer({"carrier": "Ü", "delay": 1}, topic="t")
    assert data == b'\x00\x00\x00\x00\x01{"carrier":"\xc3\x9c","delay":1}'
    assert JsonDeserializer(registry)(data) == {"carrier": "Ü", "delay": 1}
    assert list(fake.subjects) == ["t-Flight"]
    assert fake.schemas[1]["schemaType"] == "JSON"


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"carrier": 5}, r"\$\.carrier: 5 is not of type 'string'"),
        ({"carrier": "UA", "delay": -1}, r"\$\.delay: -1 is less than the minimum of 0"),
        ({}, r"\$: 'carrier' is a required property"),
        ({"carrier": "UA", "gate": 1}, r"\$: Additional properties are not allowed \('gate' was unexpected\)"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_both_ways(registry: RegistryClient, value: Any, complaint: str) -> None:
    with pytest.raises(SerializationError, match=rf"^value of topic 't', schema 1: {complaint}"):
        JsonSerializer(registry, FLIGHT)(value, topic="t")
    data = JsonSerializer(registry, FLIGHT, validate=False)(value, topic="t")
    with pytest.raises(DeserializationError, match=rf"^value, schema 1: {complaint}"):
        JsonDeserializer(registry)(data)
    assert JsonDeserializer(registry, validate=False)(data) == value
    with pytest.raises(DeserializationError, match="not of type 'array'"):
        JsonDeserializer(registry, '{"type": "array"}')(data)


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ({"pattern": r"^\p{L}+$"}, r"Python can't read the schema's pattern '\^\\\\p\{L\}\+\$': bad escape \\p"),
        ({"patternProperties": {"(": {}}}, r"Python can't read the schema's pattern '\('"),
    ],
)
def test_a_schema_that_cannot_be_checked_is_a_reason(
    fake: FakeRegistry, registry: RegistryClient, schema: dict[str, Any], complaint: str
) -> None:
    text = json.dumps(schema)
    value: Any = {"name": 1} if "patternProperties" in schema else "name"
    with pytest.raises(SerializationError, match=complaint):
        JsonSerializer(registry, text)(value, topic="t")
    data = JsonSerializer(registry, text, validate=False)(value, topic="t")
    with pytest.raises(DeserializationError, match=complaint):
        JsonDeserializer(registry)(data)
    assert JsonDeserializer(registry, validate=False)(data) == value


def test_what_json_cannot_say_is_refused(registry: RegistryClient) -> None:
    serializer = JsonSerializer(registry, "{}")
    for value in (float("nan"), {1, 2}, b"bytes"):
        with pytest.raises(SerializationError):
            serializer(value, topic="t")
    for data in (b"{", b"\xff", b"[" * 100_000):
        with pytest.raises(DeserializationError, match="schema 1"):
            JsonDeserializer(registry)(b"\x00\x00\x00\x00\x01" + data)


@pytest.mark.parametrize("base", ["", "http://example.com/schemas/leg.json"])
def test_what_is_referred_to_is_found_and_nothing_else_is_fetched(registry: RegistryClient, base: str) -> None:
    registry.register("flight", parse(SchemaType.JSON, FLIGHT))
    document = {"type": "object", "properties": {"flight": {"$ref": "flight.json"}}}
    if base:
        document["$id"] = base
    schema = parse(
        SchemaType.JSON, json.dumps(document), [Reference("flight.json", "flight", 1)], {"flight.json": FLIGHT}
    )
    data = JsonSerializer(registry, schema)({"flight": {"carrier": "UA"}}, topic="t")
    registry.forget()
    assert JsonDeserializer(registry)(data) == {"flight": {"carrier": "UA"}}
    with pytest.raises(SerializationError, match=r"\$\.flight\.carrier: 5 is not of type 'string'"):
        JsonSerializer(registry, schema)({"flight": {"carrier": 5}}, topic="t")


def test_an_anchor_is_found_beside_dependencies_of_both_kinds(registry: RegistryClient) -> None:
    document = {
        "properties": {"a": {"$ref": "#name"}},
        "definitions": {"x": {"$id": "#name", "type": "string"}},
        "dependencies": {"b": {"required": ["c"]}, "a": ["b"]},
    }
    serialize = JsonSerializer(registry, json.dumps(document))
    assert serialize({"a": "x", "b": 1, "c": 2}, topic="t")
    for wrong in ({"a": 5, "b": 1, "c": 2}, {"a": "x"}, {"b": 1}):
        with pytest.raises(SerializationError):
            serialize(wrong, topic="t")


async def test_the_same_awaited(fake: FakeRegistry) -> None:
    async with AsyncRegistryClient(fake.url) as registry:
        data = await AsyncJsonSerializer(registry, FLIGHT)({"carrier": "UA"}, topic="t")
        assert await AsyncJsonDeserializer(registry)(data) == {"carrier": "UA"}
