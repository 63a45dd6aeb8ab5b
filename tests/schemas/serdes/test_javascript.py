"""Confluent's JavaScript client and serializers on our registry, and values both ways between them and ours."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from tests.support import flight_messages
from tests.support.javascript import JavaScriptClient, JavaScriptError

from millstream.schemas import (
    AvroDeserializer,
    AvroSerializer,
    JsonDeserializer,
    JsonSerializer,
    ProtobufDeserializer,
    ProtobufSerializer,
    RegistryClient,
)

pytestmark = pytest.mark.node

NewName = Callable[[], str]

AVRO = json.dumps(
    {
        "type": "record",
        "name": "Flight",
        "namespace": "air",
        "fields": [
            {"name": "carrier", "type": "string"},
            {"name": "legs", "type": {"type": "array", "items": "string"}, "default": []},
        ],
    }
)
JSON = json.dumps({"title": "Flight", "type": "object", "properties": {"carrier": {"type": "string"}}})
FLIGHT = {"carrier": "UA", "legs": ["ORD", "SFO"]}


@pytest.fixture(scope="module")
def theirs(registry_url: str) -> Iterator[JavaScriptClient]:
    with JavaScriptClient(registry_url) as client:
        yield client


@pytest.mark.parametrize("place", ["prefix", "header"])
@pytest.mark.parametrize("kind", ["AVRO", "JSON"])
def test_avro_and_json_both_ways(
    real_registry: RegistryClient, theirs: JavaScriptClient, new_name: NewName, kind: str, place: str
) -> None:
    topic = new_name()
    schema, write, read = {
        "AVRO": (AVRO, AvroSerializer(real_registry, AVRO, id_in=place), AvroDeserializer(real_registry)),
        "JSON": (JSON, JsonSerializer(real_registry, JSON, id_in=place), JsonDeserializer(real_registry)),
    }[kind]
    theirs.call("register", f"{topic}-value", {"schema": schema, "schemaType": kind}, False)
    settings = {"useLatestVersion": True, "autoRegisterSchemas": False}
    data, headers = theirs.serialize(kind, topic, FLIGHT, settings=settings, inHeader=place == "header")
    assert bool(headers) is (place == "header")
    assert read(data, topic=topic, headers=headers) == FLIGHT
    own: dict[str, bytes] = {}
    ours = write(FLIGHT, topic=topic, headers=own)
    assert (ours, own) == (data, headers)
    assert theirs.deserialize(kind, topic, ours or b"", own) == FLIGHT
    assert real_registry.versions(f"{topic}-value") == [1]


@pytest.mark.parametrize("place", ["prefix", "header"])
@pytest.mark.parametrize("name", ["air.Airport", "air.Flight", "air.Flight.Leg.Seat"])
def test_protobuf_both_ways(
    real_registry: RegistryClient, theirs: JavaScriptClient, new_name: NewName, name: str, place: str
) -> None:
    topic = new_name()
    given: dict[str, Any] = {"air.Airport": {"code": "ORD"}, "air.Flight.Leg.Seat": {"row": 7}}
    kind = flight_messages.message_class(name)
    message = kind(**given[name]) if name in given else flight_messages.flight("UA", 3)
    value = MessageToDict(message)
    files = base64.b64encode(flight_messages.file_set().SerializeToString()).decode()
    settings = {"autoRegisterSchemas": True}
    data, headers = theirs.serialize(
        "PROTOBUF", topic, value, settings=settings, files=files, message=name, inHeader=place == "header"
    )
    found = ProtobufDeserializer(real_registry)(data, topic=topic, headers=headers)
    assert found.DESCRIPTOR.full_name == name
    assert MessageToDict(found) == value
    own: dict[str, bytes] = {}
    ours = ProtobufSerializer(real_registry, id_in=place)(message, topic=topic, headers=own)
    assert (ours, own) == (data, headers)
    assert theirs.deserialize("PROTOBUF", topic, ours or b"", own, files=files) == value
    assert real_registry.versions(f"{topic}-value") == [1]


def test_their_client_and_ours_say_the_same(
    real_registry: RegistryClient, theirs: JavaScriptClient, new_name: NewName
) -> None:
    subject = new_name()
    info = {"schema": AVRO, "schemaType": "AVRO"}
    schema_id = theirs.call("register", subject, info, False)
    assert real_registry.register(subject, AVRO) == schema_id
    assert theirs.call("getBySubjectAndId", subject, schema_id)["schema"] == real_registry.schema(schema_id).text
    full = theirs.call("getIdFullResponse", subject, info, False)
    ours = real_registry.lookup(subject, AVRO)
    assert (full["id"], full["version"], full["guid"]) == (ours.id, ours.version, ours.guid)
    assert theirs.call("getByGuid", ours.guid)["schema"] == ours.schema.text
    assert theirs.call("getAllVersions", subject) == real_registry.versions(subject) == [1]
    assert theirs.call("getLatestSchemaMetadata", subject)["version"] == 1
    assert subject in theirs.call("getAllSubjects")
    narrower = {**info, "schema": AVRO.replace('"string"', '"int"', 1)}
    assert theirs.call("testCompatibility", subject, 1, narrower) is False
    assert theirs.call("testSubjectCompatibility", subject, narrower) is False
    assert theirs.call("testSubjectCompatibility", subject, info) is True
    with pytest.raises(JavaScriptError) as caught:
        theirs.call("register", subject, narrower, False)
    assert caught.value.code == 40901
    assert theirs.call("updateCompatibility", subject, "NONE") == "NONE"
    assert real_registry.config(subject).compatibility_level == "NONE"
    assert theirs.call("getCompatibility", subject) == "NONE"
    assert theirs.call("updateConfig", subject, {"compatibility": "FULL"})["compatibility"] == "FULL"
    assert theirs.call("getConfig", subject)["compatibilityLevel"] == "FULL"
    assert theirs.call("getDefaultCompatibility") == real_registry.config().compatibility_level
    assert theirs.call("deleteSubjectVersion", subject, 1, False) == 1
    assert theirs.call("deleteSubject", subject, True) == [1]
    with pytest.raises(JavaScriptError) as caught:
        theirs.call("getAssociationsByResourceName", subject, "-", "topic", ["value"], None, 0, -1)
    assert "404" in str(caught.value)
